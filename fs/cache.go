package fs

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// grace is how long a unit that a stream is reading is kept for it while other
// readers wait for room and the stream does not go on.
const grace = 200 * time.Millisecond

// cache is the tensor cache: filled units by key, counted in bytes.
//
// A unit is queued until there is room for it, filling, and then ready; a ready
// unit is pinned by sessions or idle. There is one fill for each key however many
// sessions wait; it runs in a goroutine of its own, so that a reader that gives up does
// not stop it. All bytes count against the budget, but for the units of one session at
// a time (the holder), which may go beyond it: so a budget of 0 works, slowly.
//
// Room is made by evicting, in this order: units that were read to their end, units
// that no stream is reading (oldest first), and, once grace has passed, units
// whose stream does not go on.
type cache struct {
	fs     *FS
	budget int64
	grace  time.Duration

	mu      sync.Mutex
	entries map[expr.UnitKey]*entry
	idle    *simplelru.LRU[expr.UnitKey, *entry] // ready and not spent; pinned ones are passed over
	spent   *simplelru.LRU[expr.UnitKey, *entry] // ready and read to their end
	ghosts  *simplelru.LRU[expr.UnitKey, struct{}]
	queue   []*entry
	holder  *session
	timer   *time.Timer
	closed  bool
	fills   sync.WaitGroup

	used, pinned, filling int64 // bytes; used counts idle ones too
	waiting               int64 // sessions
	pressure              float64
	buffers               buffers
	checked               bool // check the account at every change (tests)
}

// unit is what the cache needs of an expr.Unit.
type unit interface {
	Key() expr.UnitKey
	Size() int64
	Fill(env *expr.Env, dst []byte) error
	String() string
}

// entry is a unit in the cache.
type entry struct {
	unit  unit
	key   expr.UnitKey
	size  int64
	state state
	pins  int
	wants []*session // that wait
	buf   []byte
	err   error
	done  chan struct{} // closed when ready or failed

	deferred bool // it had to wait though nothing was in use but by streams
	prefetch bool // nobody has asked for it yet
	span     span
	read     int64 // bytes of the span that were read
	clock    int64 // of the last read, see regions
	touched  time.Time
	stream   bool // the last read looked sequential
}

// state of an entry.
type state uint8

const (
	queued state = iota
	filling
	ready
	gone // failed, evicted or given up
)

// Bytes of the filled unit.
func (e *entry) Bytes() []byte { return e.buf }

// Release does nothing: sessions hold their entries until they end.
func (e *entry) Release() {}

func newCache(f *FS, budget int64) *cache {
	c := &cache{fs: f, budget: budget, grace: grace, entries: map[expr.UnitKey]*entry{}}
	c.idle, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	c.spent, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	c.ghosts, _ = simplelru.NewLRU[expr.UnitKey, struct{}](1<<14, nil)
	return c
}

// get pins a unit for a session, waiting until it is filled.
func (c *cache) get(ctx context.Context, s *session, u unit) (*entry, error) {
	c.mu.Lock()
	s.asked = true
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	e := c.entries[u.Key()]
	if e != nil && e.state == ready {
		c.pin(e)
		c.mu.Unlock()
		c.fs.counters.hits.Add(1)
		return e, nil
	}
	c.fs.counters.misses.Add(1)
	if e == nil {
		e = c.enqueue(u)
	}
	e.prefetch = false
	e.wants = append(e.wants, s)
	c.waiting++
	c.admit()
	c.mu.Unlock()
	select {
	case <-e.done:
		return e, e.err // the fill has pinned it
	case <-ctx.Done():
		return nil, c.giveUp(ctx, s, e)
	}
}

// enqueue makes an entry that waits for room.
func (c *cache) enqueue(u unit) *entry {
	e := &entry{unit: u, key: u.Key(), size: u.Size(), done: make(chan struct{})}
	c.entries[e.key] = e
	c.queue = append(c.queue, e)
	return e
}

// giveUp takes a cancelled session off an entry. A fill that has begun goes on.
func (c *cache) giveUp(ctx context.Context, s *session, e *entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.state {
	case ready:
		c.unpin(e)
		c.admit()
	case queued, filling:
		c.waiting--
		for i, w := range e.wants {
			if w == s {
				e.wants = append(e.wants[:i], e.wants[i+1:]...)
				break
			}
		}
		if e.state == queued && len(e.wants) == 0 {
			c.dequeue(e)
			c.drop(e, context.Canceled)
		}
	}
	return ctx.Err()
}

// dequeue takes an entry out of the queue.
func (c *cache) dequeue(e *entry) {
	for i, q := range c.queue {
		if q == e {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return
		}
	}
}

// drop ends an entry that never became ready.
func (c *cache) drop(e *entry, err error) {
	e.state, e.err = gone, err
	delete(c.entries, e.key)
	c.waiting -= int64(len(e.wants))
	e.wants = nil
	close(e.done)
}

// pin marks a ready entry as in use.
func (c *cache) pin(e *entry) {
	if e.pins++; e.pins == 1 {
		c.pinned += e.size
	}
	e.prefetch = false
	if !e.isSpent() {
		c.idle.Get(e.key)
	}
	c.check()
}

// unpin ends one use; what is beyond the budget goes at once.
func (c *cache) unpin(e *entry) {
	if e.pins--; e.pins > 0 {
		return
	}
	c.pinned -= e.size
	c.check()
	for c.used > c.budget && c.evictOne(nil, true) {
	}
}

// finish ends a session: its entries are unpinned and know what was read of them.
func (c *cache) finish(s *session) {
	if !s.asked {
		return
	}
	s.asked = false
	c.mu.Lock()
	for _, e := range s.held {
		if !e.fits(s) {
			c.mu.Unlock()
			where := spanOf(s.file, e.key, s.off, s.n) // asks the recipe, so not under the lock
			c.mu.Lock()
			e.span, e.read = where, 0
		}
	}
	defer c.mu.Unlock()
	for _, e := range s.held {
		c.note(s, e)
		c.unpin(e)
	}
	if c.holder == s {
		c.holder = nil
	}
	c.admit()
}

// admit begins the fills that there is room for, and one session's beyond that.
func (c *cache) admit() {
	for progress := true; progress; {
		progress = false
		for i := 0; i < len(c.queue); i++ {
			e := c.queue[i]
			if !c.room(e) {
				continue
			}
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			c.start(e)
			progress = true
			break
		}
	}
	if len(c.queue) > 0 {
		c.wakeLater()
	}
}

// room makes room for a queued entry if that may be.
func (c *cache) room(e *entry) bool {
	for _, s := range e.wants {
		if s == c.holder {
			return true
		}
	}
	for c.used+e.size > c.budget {
		if c.evictOne(e, false) {
			continue
		}
		if c.holder != nil || c.used > c.pinned+c.filling {
			e.deferred = true
			return false
		}
		c.holder = e.wants[0]
		break
	}
	return true
}

// wakeLater looks at the queue again when grace may have passed.
func (c *cache) wakeLater() {
	if c.timer != nil {
		return
	}
	c.timer = time.AfterFunc(c.grace/4+time.Millisecond, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.timer = nil
		if !c.closed {
			c.admit()
		}
	})
}

// start begins a fill.
func (c *cache) start(e *entry) {
	e.state, e.clock = filling, c.fs.clock.Load()
	c.used += e.size
	c.filling += e.size
	c.check()
	_, refetch := c.ghosts.Peek(e.key)
	if refetch {
		c.ghosts.Remove(e.key)
		c.fs.counters.refetches.Add(1)
	}
	c.pressure *= 15. / 16
	if refetch || e.deferred {
		c.pressure++
	}
	c.fs.counters.fills.Add(1)
	c.fills.Add(1)
	go c.fill(e)
}

// fill computes a unit and hands it to all who wait.
func (c *cache) fill(e *entry) {
	defer c.fills.Done()
	buf := c.buffers.get(e.size)
	err := c.fs.fillUnit(e.unit, buf)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filling -= e.size
	if err != nil {
		c.fs.counters.fillErrors.Add(1)
		c.used -= e.size
		c.buffers.put(buf)
		c.drop(e, err)
	} else {
		c.settle(e, buf)
	}
	c.check()
	c.admit()
}

// settle makes a filled entry ready, pinned for those who wait.
func (c *cache) settle(e *entry, buf []byte) {
	e.state, e.buf, e.touched = ready, buf, time.Now()
	c.idle.Add(e.key, e)
	c.waiting -= int64(len(e.wants))
	if e.pins = len(e.wants); e.pins > 0 {
		c.pinned += e.size
	}
	clear(e.wants)
	e.wants = e.wants[:0]
	close(e.done)
	for c.used > c.budget && c.evictOne(nil, true) {
	}
}

// evictOne throws one unit out; e is what room is made for (nil: a prefetch, or nothing),
// any says that streams need not be spared.
func (c *cache) evictOne(e *entry, any bool) bool {
	if c.evictFrom(c.spent, func(*entry) bool { return true }) {
		return true
	}
	now := time.Now()
	return c.evictFrom(c.idle, func(old *entry) bool { return any || c.evictable(old, e, now) })
}

// evictFrom throws out the oldest unit that is not pinned and of which ok says so.
// Those passed over are in use, so they become the newest.
func (c *cache) evictFrom(lru *simplelru.LRU[expr.UnitKey, *entry], ok func(*entry) bool) bool {
	for range lru.Len() {
		key, e, _ := lru.GetOldest()
		if e.pins == 0 && ok(e) {
			lru.Remove(key)
			c.evict(e)
			return true
		}
		lru.Get(key)
	}
	return false
}

// evict frees a unit that is in no list any more.
func (c *cache) evict(e *entry) {
	delete(c.entries, e.key)
	if !e.isSpent() {
		c.ghosts.Add(e.key, struct{}{})
	}
	e.state = gone
	c.used -= e.size
	c.buffers.put(e.buf)
	e.buf = nil
	c.fs.counters.evictions.Add(1)
	c.check()
}

// close fails all who wait and waits for the fills that run.
func (c *cache) close() {
	c.mu.Lock()
	c.closed = true
	for _, e := range c.queue {
		c.drop(e, ErrClosed)
	}
	c.queue = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.fills.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.evictOne(nil, true) {
	}
	c.buffers.free()
}

// stats adds what the cache holds.
func (c *cache) stats(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.CacheBudget, s.CacheUsed = c.budget, c.used
	s.Pinned, s.Filling = c.pinned, c.filling
	s.Units, s.Waiting = int64(c.idle.Len()+c.spent.Len()), c.waiting
	s.TooSmall = c.pressure > 4
}

// check proves the account right, in tests.
func (c *cache) check() {
	if !c.checked {
		return
	}
	var used, pinned, fill int64
	for _, e := range c.entries {
		switch {
		case e.state == filling:
			fill += e.size
		case e.state == ready && e.pins > 0:
			pinned += e.size
		}
		if e.state == filling || e.state == ready {
			used += e.size
		}
	}
	if used != c.used || pinned != c.pinned || fill != c.filling {
		panic(fmt.Sprintf("cache account: used %d, pinned %d, filling %d; counted %d, %d, %d",
			c.used, c.pinned, c.filling, used, pinned, fill))
	}
}

// fillUnit computes a unit; a panic becomes an error.
func (f *FS) fillUnit(u unit, buf []byte) (err error) {
	defer f.recover("fill of "+u.String(), &err)
	env := expr.Env{Context: f.ctx, ReadAt: f.readSource, Go: f.together}
	if err := u.Fill(&env, buf); err != nil {
		return fmt.Errorf("%s: %w", u, err)
	}
	return nil
}

// together runs the functions at the same time, so that slow sources overlap,
// and gives the first error once all have ended.
func (f *FS) together(fns ...func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(fns))
	next := make(chan int, len(fns))
	for i := range fns {
		next <- i
	}
	close(next)
	for range min(len(fns), maxPieces) {
		wg.Go(func() {
			for i := range next {
				errs[i] = f.guarded(fns[i])
			}
		})
	}
	wg.Wait()
	return or(errs...)
}

// guarded runs fn; a panic becomes an error.
func (f *FS) guarded(fn func() error) (err error) {
	defer f.recover("strip", &err)
	return fn()
}
