package units

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// grace is how long a unit is kept for a stream that has paused, while readers wait for room.
const grace = 200 * time.Millisecond

// patience is how long a reader waits for room before it may evict units of active streams.
const patience = time.Second

// Cache is the tensor cache. It also keeps scale grids and source bytes that were read ahead. Only
// the memory of units counts against its budget.
//
// A [Read] names all units that it needs. It is admitted when there is room for the missing ones.
// Until then it holds nothing, so reads never wait for each other in circles. A read that needs
// more than the budget is admitted when no other read holds anything. So a budget of 0 works,
// slowly.
//
// A key has one fill, even if many reads wait for it. The fill runs in its own goroutine, so it
// goes on if a reader gives up.
//
// To make room, the cache evicts units in this order: units that were read to their end; units that
// no stream is reading, oldest first; after a grace period, units of streams that have paused. A
// read whose units are all present never waits for room.
type Cache struct {
	guard    guard
	workers  int
	clock    atomic.Int64 // counts reads
	counters counters
	files    files
	strips   strips
	filler   filler
	scales   *scaleCache
	computed *computed
	grids    *computed // large stored grids
	blocks   *blocks

	ctx  context.Context // of fills and of reading ahead
	stop context.CancelFunc

	budget          int64
	grace, patience time.Duration

	mu      sync.Mutex
	entries map[expr.UnitKey]*entry
	idle    *simplelru.LRU[expr.UnitKey, *entry] // ready and not spent; pinned ones are not evicted
	spent   *simplelru.LRU[expr.UnitKey, *entry] // ready and read to their end
	ghosts  *simplelru.LRU[expr.UnitKey, ghost]  // evicted units
	queue   []*Read                              // waiting for room, oldest first
	reads   map[*Read]struct{}                   // admitted
	timer   *time.Timer
	closed  bool
	fills   sync.WaitGroup

	request               int64 // bytes of units that one request needs, at most; 0: not known
	used, pinned, filling int64 // bytes; used counts idle units too
	shelved               int64 // bytes of fills whose file is stalled; not part of the others
	// bytes in spent, and how many of them recycle keeps
	spentBytes, keepSpent int64
	keep                  int64 // overrides keepSpent; 0: keepSpent depends on the budget
	pressure              float64
	buffers               buffers
	checked               bool // check the account at every change (tests)
}

// Unit is the part of an expr.Unit that the cache uses.
type Unit interface {
	Key() expr.UnitKey
	Size() int64
	Fill(env expr.FillEnv, dst []byte) error
	String() string
}

// taken returns the memory that a unit takes.
func taken(u Unit) int64 { return bufferSize(u.Size()) }

// entry is a unit in the cache.
type entry struct {
	unit    Unit
	key     expr.UnitKey
	size    int64 // of its memory
	state   state
	shelved bool
	pins    int
	buf     []byte
	err     error
	done    chan struct{} // closed when ready or failed

	prefetch bool // no reader has asked for it yet
	span     span
	read     int64 // bytes of the span that were read
	clock    int64 // of the last read
	run      Run   // the run of the last read
	touched  time.Time
	stream   bool // the last read looked sequential
}

// state of an entry.
type state uint8

const (
	filling state = iota
	ready
	gone // failed or evicted
)

func newCache(t Tuning) *Cache {
	c := &Cache{
		grace: cmp.Or(t.Grace, grace), patience: cmp.Or(t.Patience, patience),
		keep: t.KeepSpent, checked: t.Check,
		entries: map[expr.UnitKey]*entry{}, reads: map[*Read]struct{}{},
		buffers: buffers{most: maxUnits},
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.idle, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	c.spent, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	c.ghosts, _ = simplelru.NewLRU[expr.UnitKey, ghost](1<<14, nil)
	return c
}

// setBudget changes the budget. request is the most bytes of units that one request needs at once.
func (c *Cache) setBudget(n, request int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget, c.request = n, request
	c.keepSpent = cmp.Or(c.keep, min(max(n/64, minSpent), maxSpent))
	c.trim()
}

// acquire pins all units that a read wants, and waits until they are filled.
func (c *Cache) acquire(ctx context.Context, r *Read) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if r.Modest && len(c.queue) > 0 || !c.admit(r) {
		if r.Modest {
			c.mu.Unlock()
			return ErrNoRoom
		}
		r.queued = time.Now()
		c.queue = append(c.queue, r)
		c.wakeLater()
		c.mu.Unlock()
		begun := r.waits.begin(forRoom)
		err := wait(ctx, c.ctx, r.admitted)
		r.waits.end(forRoom, begun)
		if err != nil {
			c.giveUp(r)
			return err
		}
		c.mu.Lock()
	}
	waiting := r.waiting
	c.mu.Unlock()
	if !waiting {
		return nil
	}
	return r.await(ctx)
}

// await waits for the fills of a read.
func (r *Read) await(ctx context.Context) error {
	defer r.cache.stopWaiting(r)
	for _, e := range r.held {
		begun := r.waits.begin(forUnit)
		err := wait(ctx, r.cache.ctx, e.done)
		r.waits.end(forUnit, begun)
		if time.Since(begun) > r.cache.guard.slowAfter/2 {
			r.slowest = e.unit.String()
		}
		if err != nil {
			return err
		}
		if e.err != nil {
			return e.err
		}
	}
	return nil
}

func (c *Cache) stopWaiting(r *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.waiting = false
}

// giveUp removes a cancelled read from the queue. A read that is not in the queue has just been
// admitted. It releases its units when it ends.
func (c *Cache) giveUp(r *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.queue {
		if q == r {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return
		}
	}
	<-r.admitted
}

// admit gives a read either all units that it wants or, without room, none.
func (c *Cache) admit(r *Read) bool {
	missing, stalled := c.hold(r)
	if missing > 0 && (stalled || !c.room(r, missing)) {
		c.letGo(r)
		return false
	}
	c.reads[r] = struct{}{}
	for _, u := range r.wants {
		if r.find(u.Key()) == nil {
			e := c.start(u, r.deferred)
			c.pin(e)
			r.held = append(r.held, e)
		}
	}
	for _, e := range r.held {
		if e.state == filling {
			r.waiting = true
			c.counters.misses.Add(1)
		} else {
			c.counters.hits.Add(1)
		}
	}
	c.prove()
	return true
}

// hold pins the units that a read wants and that are present. It returns the bytes of the missing
// ones, and whether one of them comes from a stalled file.
func (c *Cache) hold(r *Read) (missing int64, stalled bool) {
	for _, u := range r.wants {
		key := u.Key()
		e := c.entries[key]
		if e == nil {
			missing += taken(u)
			stalled = stalled || c.files.isStalled(key.File)
			continue
		}
		e.prefetch = false
		c.pin(e)
		r.held = append(r.held, e)
	}
	return missing, stalled
}

// pin begins one use of a unit.
func (c *Cache) pin(e *entry) {
	if e.pins++; e.pins == 1 && e.state == ready {
		c.pinned += e.size
	}
}

// letGo undoes hold.
func (c *Cache) letGo(r *Read) {
	for _, e := range r.held {
		c.unpin(e)
	}
	r.held = emptied(r.held)
}

// emptied empties a list and keeps its memory.
func emptied(list []*entry) []*entry {
	clear(list)
	return list[:0]
}

// room makes room for n bytes, or returns false. A read is admitted at once if no other read holds
// anything.
func (c *Cache) room(r *Read, n int64) bool {
	for c.used+n > c.budget {
		if c.evictOne(r) {
			continue
		}
		if r.Modest {
			return false
		}
		if c.alone() && c.idleBytes() == 0 {
			return true
		}
		r.deferred = true
		return false
	}
	return true
}

// alone reports whether nothing is being filled and no read holds anything. Reads of stalled files
// do not count.
func (c *Cache) alone() bool {
	if c.filling > 0 {
		return false
	}
	for r := range c.reads {
		if !r.stuck() {
			return false
		}
	}
	return true
}

// idleBytes returns the bytes that could be evicted if no stream were spared.
func (c *Cache) idleBytes() int64 { return c.used - c.pinned - c.filling }

// unpin ends one use.
func (c *Cache) unpin(e *entry) {
	if e.pins--; e.pins == 0 && e.state == ready {
		c.pinned -= e.size
	}
	c.prove()
}

// finish ends a read. It unpins the units, and records how much of each was read.
func (c *Cache) finish(r *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.findSpans(r)
	for _, e := range r.held {
		if e.state == ready && r.served {
			c.note(r, e)
		}
		c.unpin(e)
	}
	delete(c.reads, r)
	for _, e := range r.late {
		c.unpin(e)
	}
	r.held, r.late = emptied(r.held), emptied(r.late)
	r.deferred, r.waiting = false, false
	c.trim()
	c.serve()
}

// findSpans finds where in the file the units of a read are needed. It asks the recipe, and unlocks
// the cache meanwhile. Another read may find the span at the same time, and record what it read.
// That is kept.
func (c *Cache) findSpans(r *Read) {
	for _, e := range r.held {
		if e.state != ready || !r.served || e.fits(r) {
			continue
		}
		c.mu.Unlock()
		where := spanOf(r, e.key)
		c.mu.Lock()
		if !e.fits(r) {
			e.span, e.read = where, 0
		}
	}
}

// serve admits the reads that there is room for, oldest first. A read that needs less, or nothing
// more, may overtake.
func (c *Cache) serve() {
	for i := 0; i < len(c.queue); {
		r := c.queue[i]
		if !c.admit(r) {
			i++
			continue
		}
		c.queue = append(c.queue[:i], c.queue[i+1:]...)
		r.admitted <- struct{}{}
	}
	if len(c.queue) > 0 {
		c.wakeLater()
	}
}

// wakeLater looks at the queue again after a part of the grace period.
func (c *Cache) wakeLater() {
	if c.timer != nil || c.closed {
		return
	}
	c.timer = time.AfterFunc(c.grace/4+time.Millisecond, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.timer = nil
		if !c.closed && len(c.queue) > 0 {
			c.shelve()
			c.serve()
		}
	})
}

// closeUnits waits for running fills and frees all units.
func (c *Cache) closeUnits() {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.fills.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim()
	c.buffers.free()
}

// addUnits adds the numbers of the tensor cache.
func (c *Cache) addUnits(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.CacheBudget, s.CacheUsed = c.budget, c.used
	s.Pinned, s.Filling = c.pinned, c.filling
	s.Units = int64(c.idle.Len() + c.spent.Len())
	s.Waiting = int64(len(c.queue)) + c.computed.waiting.Load() + c.grids.waiting.Load()
	for r := range c.reads {
		if r.waiting {
			s.Waiting++
		}
	}
	s.TooSmall = c.pressure > 4
}

// prove panics if the account is wrong. It only runs in tests.
func (c *Cache) prove() {
	if !c.checked {
		return
	}
	got := account{used: c.used, pinned: c.pinned, filling: c.filling, spent: c.spentBytes}
	if want := c.count(); got != want {
		panic(fmt.Sprintf("cache account: %+v, but there is %+v", got, want))
	}
}

// account is how many bytes the cache holds.
type account struct{ used, pinned, filling, spent int64 }

// count computes the account from the entries.
func (c *Cache) count() (a account) {
	for _, e := range c.entries {
		switch {
		case e.state == filling && !e.shelved:
			a.filling += e.size
			a.used += e.size
		case e.state == ready:
			a.used += e.size
			if e.pins > 0 {
				a.pinned += e.size
			}
		}
		if c.spent.Contains(e.key) {
			a.spent += e.size
		}
	}
	return a
}
