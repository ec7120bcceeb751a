package units

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// computed keeps the scale grids of layout hf-fp8, and in another instance large stored grids. Each
// of the first costs a read of its whole weight, and each of the second a read of megabytes. So a
// grid is made only once for all readers that wait. Making it goes on if a reader gives up.
type computed struct {
	filler *filler
	*scaleCache
	calls   map[expr.UnitKey]*entry // under way; guarded by scaleCache.mu, as is closed
	closed  bool
	running sync.WaitGroup
	waiting atomic.Int64 // readers
}

func newComputed(f *filler) *computed {
	return &computed{filler: f, scaleCache: newScaleCache(), calls: map[expr.UnitKey]*entry{}}
}

// get returns a grid. It waits until the grid is computed or the reader gives up.
func (c *computed) get(ctx context.Context, w *waits, u Unit) (*entry, error) {
	e, kept := c.find(u)
	switch {
	case e == nil:
		return nil, ErrClosed
	case kept:
		return e, e.key.File.Check()
	}
	c.waiting.Add(1)
	begun := w.begin(forUnit)
	err := wait(ctx, c.filler.ctx, e.done)
	w.end(forUnit, begun)
	c.waiting.Add(-1)
	if err != nil {
		return nil, err
	}
	return e, e.err
}

// find returns a grid that is kept or being computed. Otherwise it begins to compute the grid. It
// returns nil if the cache is closed.
func (c *computed) find(u Unit) (e *entry, kept bool) {
	key := u.Key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, kept = c.lru.Get(key); kept {
		return e, true
	}
	if e = c.calls[key]; e == nil && !c.closed {
		e = &entry{key: key, size: u.Size(), done: make(chan struct{})}
		c.calls[key] = e
		c.running.Add(1)
		go c.compute(e, u)
	}
	return e, false
}

func (c *computed) compute(e *entry, u Unit) {
	defer c.running.Done()
	e.buf = make([]byte, e.size)
	e.err = c.filler.fill(u, e.buf)
	if e.err == nil {
		c.add(e)
	}
	c.mu.Lock()
	delete(c.calls, e.key)
	c.mu.Unlock()
	close(e.done)
}

// close waits for the grids that are being computed.
func (c *computed) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
}
