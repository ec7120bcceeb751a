package units

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// Read is one read of a virtual file, and the environment of its recipes. Its units stay pinned
// until it ends. So it fills each unit only once, even with a small budget. It may be used again
// after End.
type Read struct {
	cache *Cache
	ctx   context.Context

	file   File // what is being read
	off, n int64
	run    Run

	// Modest reads fail with ErrNoRoom instead of waiting for room or taking it from streams. They
	// are read ahead only into half of the blocks.
	Modest bool

	wants    []Unit
	held     []*entry      // pinned
	late     []*entry      // pinned after the read was admitted; guarded by Cache.mu
	admitted chan struct{} // receives when the cache admits the read
	queued   time.Time     // since when it waits for room
	deferred bool          // it had to wait for room
	waiting  bool          // for a fill
	served   bool          // the read went well

	waits   waits
	slowest string // a unit for which it waited long

	ahead ahead
	fetch func(*expr.Unit) bool
}

var _ expr.Env = (*Read)(nil)

// NewRead makes a read. Begin must be called before it is used.
func (c *Cache) NewRead() *Read {
	r := &Read{cache: c, admitted: make(chan struct{}, 1)}
	r.fetch = r.fetchAhead
	return r
}

// Begin begins to read [off, off+n) of a file.
func (r *Read) Begin(ctx context.Context, f File, off, n int64, run Run) {
	r.ctx = ctx
	r.file, r.off, r.n, r.run = f, off, n, run
	r.waits.reset()
}

// End releases all that the read holds. served reports whether the read succeeded.
func (r *Read) End(served bool) {
	r.served = served
	if len(r.wants) > 0 || len(r.late) > 0 {
		r.cache.finish(r)
	}
	clear(r.wants)
	r.wants = r.wants[:0]
	r.queued, r.slowest = time.Time{}, ""
	r.ctx, r.file = nil, nil
}

// Want names a unit that the read needs. Only units of the tensor cache have to be named.
func (r *Read) Want(u Unit) {
	key := u.Key()
	known := func(w Unit) bool { return w.Key() == key }
	if key.Kind == expr.Transposed && !slices.ContainsFunc(r.wants, known) {
		r.wants = append(r.wants, u)
	}
}

// Acquire pins the units that the read wants, and waits until they are filled.
func (r *Read) Acquire() error {
	if len(r.wants) == 0 {
		return nil
	}
	if err := r.cache.acquire(r.ctx, r); err != nil {
		return err
	}
	for _, e := range r.held {
		if err := e.key.File.Check(); err != nil {
			return err
		}
	}
	return nil
}

// ReadAhead begins to read a range of a source file that the stream of this read will need. The
// stream needs it until it gets to end in the virtual file. It reports whether there was room.
func (r *Read) ReadAhead(f expr.File, off, n, end int64) bool {
	return r.cache.blocks.fetch(r, f, off, n, end)
}

// Waited describes how long the read has waited, and for what.
func (r *Read) Waited() []slog.Attr {
	attrs := []slog.Attr{slog.String("waited_for", r.waits.String())}
	if r.slowest != "" {
		attrs = append(attrs, slog.String("unit", r.slowest))
	}
	return attrs
}

// Waiting describes why the read is waiting now. Other goroutines may call it.
func (r *Read) Waiting() []slog.Attr {
	return []slog.Attr{
		slog.String("waited_for", r.waits.String()),
		slog.String("waits_now_for", reasonNames[r.waits.now.Load()]),
	}
}

// Err returns an error if the reader has given up.
func (r *Read) Err() error { return r.ctx.Err() }

// Unit returns a filled unit, which stays until the read ends.
func (r *Read) Unit(u *expr.Unit) (expr.Entry, error) {
	key := u.Key()
	switch key.Kind {
	case expr.Grid:
		if u.Size() > smallGrid {
			return r.cache.grids.get(r.ctx, &r.waits, u)
		}
		return r.cache.scales.get(r, u)
	case expr.Computed:
		return r.cache.computed.get(r.ctx, &r.waits, u)
	}
	if e := r.find(key); e != nil {
		return e, nil
	}
	return r.cache.late(r, u)
}

// late returns a unit that a recipe needs but did not announce by its Units. Such units are
// counted. The cache evicts others for it, but the read does not wait for room. It already holds
// units, so reads could wait for each other in circles.
func (c *Cache) late(r *Read, u Unit) (expr.Entry, error) {
	e, err := c.pinLate(r, u)
	if err != nil {
		return nil, err
	}
	begun := r.waits.begin(forUnit)
	err = wait(r.ctx, c.ctx, e.done)
	r.waits.end(forUnit, begun)
	if err == nil {
		err = e.err
	}
	if err == nil {
		err = e.key.File.Check() // it may have been kept for long
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// pinLate pins a unit that was not announced until the read ends.
func (c *Cache) pinLate(r *Read, u Unit) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.counters.unannounced.Add(1)
	e := c.entries[u.Key()]
	if e == nil {
		for c.used+taken(u) > c.budget && c.evictOne(r) {
		}
		e = c.start(u, false)
	}
	c.pin(e)
	r.late = append(r.late, e)
	c.reads[r] = struct{}{}
	c.prove()
	return e, nil
}

// find finds a unit among those that the read has pinned.
func (r *Read) find(key expr.UnitKey) *entry {
	for _, e := range r.held {
		if e.key == key {
			return e
		}
	}
	return nil
}

// Bytes returns the bytes of the filled unit.
func (e *entry) Bytes() []byte { return e.buf }

// Release does nothing, since reads hold their entries until they end.
func (e *entry) Release() {}

// Lend lends source bytes that were read ahead.
func (r *Read) Lend(f expr.File, off int64, n, width int) ([]byte, expr.Entry, int) {
	p, k, gap := r.cache.blocks.borrow(r, f, off, int64(n), int64(width))
	if k == nil && r.Modest {
		// Nothing was read ahead of it. One large read is faster than those of the recipe.
		r.cache.blocks.fetch(r, f, off, min(gap, r.cache.blocks.size), r.off+r.n)
		p, k, gap = r.cache.blocks.borrow(r, f, off, int64(n), int64(width))
	}
	if k == nil {
		return nil, nil, int(gap)
	}
	return p, k, 0
}

// ReadAt fills p from blocks that were read ahead, and reads the rest.
func (r *Read) ReadAt(f expr.File, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		rest := p[n:]
		lent, k, gap := r.cache.blocks.borrow(r, f, off+int64(n), int64(len(rest)), 1)
		if k != nil {
			n += copy(rest, lent)
			k.Release()
			continue
		}
		begun := r.waits.begin(forSource)
		got, err := r.cache.files.read(r.ctx, f, rest[:gap], off+int64(n))
		r.waits.end(forSource, begun)
		if n += got; err != nil {
			return n, err
		}
	}
	return n, nil
}

// Lost counts values that a narrower dtype could not hold.
func (r *Read) Lost(saturated, infinite int) {
	if saturated > 0 {
		r.cache.counters.saturated.Add(int64(saturated))
	}
	if infinite > 0 {
		r.cache.counters.infinite.Add(int64(infinite))
	}
}

// Drop tells the system to drop a range of a source file from its page cache.
func (c *Cache) Drop(f expr.File, off, n int64) bool {
	if a, ok := f.(adviser); ok && c.files.policy == SourceDrop {
		a.Advise(off, n, true)
	}
	return true
}

// adviser is a source file that can advise the system about its page cache.
type adviser interface {
	Advise(off, n int64, dontneed bool)
}

// dropUnit drops the source of a filled unit from the page cache. A panic is only logged, since the
// unit is filled.
func (c *Cache) dropUnit(key expr.UnitKey) {
	var ignored error
	defer c.guard.recover("letting go of a source", &ignored)
	c.Drop(key.File, key.Offset, key.Rows*max(key.Stride, key.Cols))
}
