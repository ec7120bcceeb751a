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

// grace is how long a unit that a stream is reading is kept for it while other
// readers wait for room and the stream does not go on.
const grace = 200 * time.Millisecond

// patience is how long a reader waits for room before it may take it from streams that do go on.
const patience = time.Second

// Cache is the tensor cache, and all else that is kept of a source. It counts the memory of units.
//
// A [Read] names all units that it needs and is admitted when there is room for the missing ones.
// Until then it holds nothing, so reads never wait for each other in circles. A read that needs
// more than the budget is admitted when no other read holds anything: a budget of 0 works, slowly.
// A key has one fill, however many reads wait for it. The fill runs in its own goroutine, so a
// reader that gives up does not stop it.
//
// Room is made by evicting units in this order: units that were read to their end; units that no
// stream is reading, oldest first; and, after a grace period, units whose stream does not go on.
// A read whose units are all there never waits for room.
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
	blocks   *blocks

	ctx  context.Context // of fills and of reading ahead
	stop context.CancelFunc

	budget          int64
	grace, patience time.Duration

	mu      sync.Mutex
	entries map[expr.UnitKey]*entry
	idle    *simplelru.LRU[expr.UnitKey, *entry] // ready and not spent; pinned ones are passed over
	spent   *simplelru.LRU[expr.UnitKey, *entry] // ready and read to their end
	ghosts  *simplelru.LRU[expr.UnitKey, ghost]  // what was evicted
	queue   []*Read                              // waiting for room, oldest first
	reads   map[*Read]struct{}                   // admitted
	timer   *time.Timer
	closed  bool
	fills   sync.WaitGroup

	request               int64 // bytes of units that one request needs, at most; 0: not known
	used, pinned, filling int64 // bytes; used counts idle units too
	shelved               int64 // bytes of fills whose file is stalled; not in the others
	spentBytes, keepSpent int64 // bytes in spent; how many are kept while there is room, see recycle
	keep                  int64 // overrides keepSpent; 0: it depends on the budget
	pressure              float64
	buffers               buffers
	checked               bool // check the account at every change (tests)
}

// Unit is what the cache needs of an expr.Unit.
type Unit interface {
	Key() expr.UnitKey
	Size() int64
	Fill(env expr.FillEnv, dst []byte) error
	String() string
}

// taken is the memory that a unit takes.
func taken(u Unit) int64 { return bufferSize(u.Size()) }

// entry is a unit in the cache.
type entry struct {
	unit    Unit
	key     expr.UnitKey
	size    int64 // of the memory that it takes
	state   state
	shelved bool
	pins    int
	buf     []byte
	err     error
	done    chan struct{} // closed when ready or failed

	prefetch bool // nobody has asked for it yet
	span     span
	read     int64 // bytes of the span that were read
	clock    int64 // of the last read, see streams
	run      Run   // that it was part of
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

// Bytes of the filled unit.
func (e *entry) Bytes() []byte { return e.buf }

// Release does nothing: sessions hold their entries until they end.
func (e *entry) Release() {}

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

// setBudget changes the budget; most is what one request may need at once.
func (c *Cache) setBudget(n, most int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget, c.request = n, most
	c.keepSpent = cmp.Or(c.keep, min(max(n/64, minSpent), maxSpent))
	c.trim()
}

// acquire pins all units that a session wants and waits until they are filled.
func (c *Cache) acquire(ctx context.Context, s *Read) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if !c.admit(s) {
		s.queued = time.Now()
		c.queue = append(c.queue, s)
		c.wakeLater()
		c.mu.Unlock()
		begun := s.waits.begin(forRoom)
		err := wait(ctx, c.ctx, s.admitted)
		s.waits.end(forRoom, begun)
		if err != nil {
			c.giveUp(s)
			return err
		}
		c.mu.Lock()
	}
	waiting := s.waiting
	c.mu.Unlock()
	if !waiting {
		return nil
	}
	return s.await(ctx)
}

// await waits for the fills of a session.
func (s *Read) await(ctx context.Context) error {
	defer s.cache.stopWaiting(s)
	for _, e := range s.held {
		begun := s.waits.begin(forUnit)
		err := wait(ctx, s.cache.ctx, e.done)
		s.waits.end(forUnit, begun)
		if time.Since(begun) > s.cache.guard.slowAfter/2 {
			s.slowest = e.unit.String()
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

func (c *Cache) stopWaiting(s *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.waiting = false
}

// giveUp takes a cancelled session out of the queue, if it is still there.
func (c *Cache) giveUp(s *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.queue {
		if q == s {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return
		}
	}
	<-s.admitted // it was admitted meanwhile; what it holds goes when it ends
}

// admit gives a session all that it wants if there is room, or nothing.
func (c *Cache) admit(s *Read) bool {
	missing, stalled := c.hold(s)
	if missing > 0 && (stalled || !c.room(s, missing)) {
		c.letGo(s)
		return false
	}
	c.reads[s] = struct{}{}
	for _, u := range s.wants {
		if s.find(u.Key()) == nil {
			e := c.start(u, s.deferred)
			c.pin(e)
			s.held = append(s.held, e)
		}
	}
	for _, e := range s.held {
		if e.state == filling {
			s.waiting = true
			c.counters.misses.Add(1)
		} else {
			c.counters.hits.Add(1)
		}
	}
	c.check()
	return true
}

// hold pins what there is of a session's wants. It tells how many bytes are missing, and whether
// they would come from a file that is stalled.
func (c *Cache) hold(s *Read) (missing int64, stalled bool) {
	for _, u := range s.wants {
		key := u.Key()
		e := c.entries[key]
		if e == nil {
			missing += taken(u)
			stalled = stalled || c.files.isStalled(key.File)
			continue
		}
		e.prefetch = false
		c.pin(e)
		s.held = append(s.held, e)
	}
	return missing, stalled
}

// pin begins a use of a unit.
func (c *Cache) pin(e *entry) {
	if e.pins++; e.pins == 1 && e.state == ready {
		c.pinned += e.size
	}
}

// letGo undoes hold.
func (c *Cache) letGo(s *Read) {
	for _, e := range s.held {
		c.unpin(e)
	}
	s.held = emptied(s.held)
}

// emptied keeps the memory of a list.
func emptied(list []*entry) []*entry {
	clear(list)
	return list[:0]
}

// room makes room for n bytes, or says that there is none. A session that nobody else
// stands in the way of gets what it needs.
func (c *Cache) room(s *Read, n int64) bool {
	for c.used+n > c.budget {
		if c.evictOne(s) {
			continue
		}
		if c.alone() && c.idleBytes() == 0 {
			return true
		}
		s.deferred = true
		return false
	}
	return true
}

// alone says whether no session holds anything, but for those that a stalled file keeps, and nothing is
// being filled.
func (c *Cache) alone() bool {
	if c.filling > 0 {
		return false
	}
	for s := range c.reads {
		if !s.stuck() {
			return false
		}
	}
	return true
}

// idleBytes are those that could be evicted if there were no streams to spare.
func (c *Cache) idleBytes() int64 { return c.used - c.pinned - c.filling }

// unpin ends one use.
func (c *Cache) unpin(e *entry) {
	if e.pins--; e.pins == 0 && e.state == ready {
		c.pinned -= e.size
	}
	c.check()
}

// finish ends a session: its entries are unpinned and know what was read of them.
func (c *Cache) finish(s *Read) {
	if len(s.wants) == 0 && len(s.late) == 0 {
		return
	}
	c.mu.Lock()
	for _, e := range s.held {
		if e.state == ready && s.served && !e.fits(s) {
			c.mu.Unlock()
			where := spanOf(s, e.key) // asks the recipe, so not under the lock
			c.mu.Lock()
			if !e.fits(s) { // another session may have looked meanwhile, and noted what it read
				e.span, e.read = where, 0
			}
		}
	}
	defer c.mu.Unlock()
	for _, e := range s.held {
		if e.state == ready && s.served {
			c.note(s, e)
		}
		c.unpin(e)
	}
	delete(c.reads, s)
	for _, e := range s.late {
		c.unpin(e)
	}
	s.held, s.late = emptied(s.held), emptied(s.late)
	s.deferred, s.waiting = false, false
	c.trim()
	c.serve()
}

// serve admits whom there is room for: first come, first served, but for those whose units are there
// or who need less.
func (c *Cache) serve() {
	for i := 0; i < len(c.queue); {
		s := c.queue[i]
		if !c.admit(s) {
			i++
			continue
		}
		c.queue = append(c.queue[:i], c.queue[i+1:]...)
		s.admitted <- struct{}{}
	}
	if len(c.queue) > 0 {
		c.wakeLater()
	}
}

// wakeLater looks at the queue again when time may have changed something.
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

// close fails all who wait and waits for the fills that run.
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

// account adds what the tensor cache holds.
func (c *Cache) account(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.CacheBudget, s.CacheUsed = c.budget, c.used
	s.Pinned, s.Filling = c.pinned, c.filling
	s.Units = int64(c.idle.Len() + c.spent.Len())
	s.Waiting = int64(len(c.queue)) + c.computed.waiting.Load()
	for r := range c.reads {
		if r.waiting {
			s.Waiting++
		}
	}
	s.TooSmall = c.pressure > 4
}

// check proves the account right, in tests.
func (c *Cache) check() {
	if !c.checked {
		return
	}
	var used, pinned, fill, spent int64
	for _, e := range c.entries {
		switch {
		case e.state == filling && !e.shelved:
			fill += e.size
		case e.state == ready && e.pins > 0:
			pinned += e.size
		}
		if e.state == filling && !e.shelved || e.state == ready {
			used += e.size
		}
		if c.spent.Contains(e.key) {
			spent += e.size
		}
	}
	if used != c.used || pinned != c.pinned || fill != c.filling || spent != c.spentBytes {
		panic(fmt.Sprintf("cache account: used %d, pinned %d, filling %d, spent %d; counted %d, %d, %d, %d",
			c.used, c.pinned, c.filling, c.spentBytes, used, pinned, fill, spent))
	}
}
