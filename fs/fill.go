package fs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// start begins a fill.
func (c *cache) start(u unit, deferred bool) *entry {
	c.recycle()
	e := &entry{unit: u, key: u.Key(), size: taken(u), done: make(chan struct{}), clock: c.fs.clock.Load()}
	c.entries[e.key] = e
	c.used += e.size
	c.filling += e.size
	old, known := c.ghosts.Peek(e.key)
	refetch := known && !old.spent
	if refetch {
		e.span, e.read = old.span, old.read
		c.fs.counters.refetches.Add(1)
	}
	c.pressure *= 15. / 16
	if refetch || deferred {
		c.pressure++
	}
	c.fs.counters.fills.Add(1)
	c.fills.Add(1)
	go c.fill(e)
	return e
}

// spare is what the budget leaves for free buffers.
func (c *cache) spare() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.budget-c.used, 0)
}

// fill computes a unit and hands it to all who wait.
func (c *cache) fill(e *entry) {
	defer c.fills.Done()
	buf := c.buffers.getWithin(e.unit.Size(), c.spare()) // as it is now: others have begun since this was started
	err := c.fs.fillUnit(e.unit, buf)
	c.fs.dropUnit(e.key)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unshelve(e)
	c.filling -= e.size
	if err != nil {
		c.fs.counters.fillErrors.Add(1)
		c.used -= e.size
		c.buffers.put(buf)
		e.state, e.err = gone, err
		delete(c.entries, e.key)
	} else {
		e.state, e.buf, e.touched = ready, buf, time.Now()
		c.idle.Add(e.key, e)
		if e.pins > 0 {
			c.pinned += e.size
		}
	}
	close(e.done)
	c.check()
	c.trim()
	c.serve()
}

// fillUnit computes a unit; a panic becomes an error.
func (f *FS) fillUnit(u unit, buf []byte) (err error) {
	defer f.recover("fill of "+u.String(), &err)
	of, w, begun := u.Key().File, new(waits), time.Now()
	env := expr.Env{
		Context: f.ctx,
		ReadAt: func(file expr.File, p []byte, off int64) (int, error) {
			defer w.end(forSource, w.begin(forSource))
			return f.readSource(context.Background(), file, p, off)
		},
		Lend: func(file expr.File, off int64, n, _ int) ([]byte, expr.Entry, int) {
			defer w.end(forSource, w.begin(forSource))
			return f.lend(file, off, n)
		},
		Go: func(fns ...func() error) error { return f.together(of, w, fns) },
	}
	err = u.Fill(&env, buf)
	if took := time.Since(begun); took > f.slowly.after {
		f.slow("a unit took long to compute", slog.String("unit", u.String()),
			slog.Duration("after", took.Round(time.Millisecond)), slog.String("waited_for", w.String()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u, err)
	}
	return nil
}

// together runs the strips of a unit at the same time, so that slow sources overlap,
// and gives the first error once all have ended.
func (f *FS) together(of expr.File, w *waits, strips []func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(strips))
	next := make(chan int, len(strips))
	for i := range strips {
		next <- i
	}
	close(next)
	for range min(len(strips), maxPieces) {
		wg.Go(func() {
			for i := range next {
				errs[i] = f.strip(of, w, strips[i])
			}
		})
	}
	wg.Wait()
	return or(errs...)
}

// strip computes a strip as soon as there is memory for it; a panic becomes an error.
func (f *FS) strip(of expr.File, w *waits, fn func() error) (err error) {
	defer f.recover("strip", &err)
	begun := w.begin(forTurn)
	ok := f.strips.begin(f.ctx, of)
	w.end(forTurn, begun)
	if !ok {
		return ErrClosed
	}
	defer f.strips.end(of)
	return fn()
}
