package units

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// start begins a fill.
func (c *Cache) start(u Unit, deferred bool) *entry {
	c.recycle()
	e := &entry{
		unit: u, key: u.Key(), size: taken(u), done: make(chan struct{}), clock: c.clock.Load(),
	}
	c.entries[e.key] = e
	c.used += e.size
	c.filling += e.size
	old, known := c.ghosts.Peek(e.key)
	refetch := known && !old.spent
	if refetch {
		e.span, e.read = old.span, old.read
		c.counters.refetches.Add(1)
	}
	c.pressure *= 15. / 16
	if refetch || deferred {
		c.pressure++
	}
	c.counters.fills.Add(1)
	c.fills.Add(1)
	go c.fill(e)
	return e
}

// spare returns how many bytes the budget leaves for free buffers.
func (c *Cache) spare() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.budget-c.used, 0)
}

// fill computes a unit and gives it to all reads that wait for it.
func (c *Cache) fill(e *entry) {
	defer c.fills.Done()
	buf := c.buffers.getWithin(e.unit.Size(), c.spare()) // other fills may have begun since start
	err := c.filler.fill(e.unit, buf)
	c.dropUnit(e.key)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unshelve(e)
	c.filling -= e.size
	if err != nil {
		c.counters.fillErrors.Add(1)
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
	c.prove()
	c.trim()
	c.serve()
}

// filler computes units.
type filler struct {
	ctx    context.Context
	guard  *guard
	files  *files
	strips *strips
}

// fill computes a unit. A panic becomes an error.
func (f *filler) fill(u Unit, buf []byte) (err error) {
	defer f.guard.recover("fill of "+u.String(), &err)
	env, begun := &fillEnv{filler: f, of: u.Key().File}, time.Now()
	err = u.Fill(env, buf)
	if took := time.Since(begun); took > f.guard.slowAfter {
		f.guard.slowly("a unit took long to compute", slog.String("unit", u.String()),
			slog.Duration("after", took.Round(time.Millisecond)),
			slog.String("waited_for", env.waits.String()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u, err)
	}
	return nil
}

// maxStrips is the most strips of one unit that are computed at once.
const maxStrips = 16

// fillEnv is the environment of the fill of a unit.
type fillEnv struct {
	*filler
	of    expr.File // the unit's source file, or the first of several
	waits waits
}

// Err returns an error after the cache is closed.
func (e *fillEnv) Err() error { return e.ctx.Err() }

// ReadAt reads source bytes.
func (e *fillEnv) ReadAt(file expr.File, p []byte, off int64) (int, error) {
	defer e.waits.end(forSource, e.waits.begin(forSource))
	return e.files.read(context.Background(), file, p, off)
}

// Lend reads source bytes into a buffer. It reads past the page cache if that is better.
func (e *fillEnv) Lend(file expr.File, off int64, n, _ int) ([]byte, expr.Entry, int) {
	defer e.waits.end(forSource, e.waits.begin(forSource))
	return e.files.loan(file, off, n)
}

// Together computes the strips of a unit at the same time, so that slow reads overlap. It returns
// the first error after all strips have ended.
func (e *fillEnv) Together(strips ...func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(strips))
	next := make(chan int, len(strips))
	for i := range strips {
		next <- i
	}
	close(next)
	for range min(len(strips), maxStrips) {
		wg.Go(func() {
			for i := range next {
				errs[i] = e.strip(strips[i])
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// strip computes a strip when there is memory for it. A panic becomes an error.
func (e *fillEnv) strip(fn func() error) (err error) {
	defer e.guard.recover("strip", &err)
	begun := e.waits.begin(forTurn)
	ok := e.strips.begin(e.ctx, e.of)
	e.waits.end(forTurn, begun)
	if !ok {
		return ErrClosed
	}
	defer e.strips.end(e.of)
	return fn()
}
