package fs

import (
	"sync"
	"sync/atomic"
)

// workers are goroutines that help large reads. They only take what they can
// begin at once: who finds none idle does the work himself.
type workers struct {
	n    int
	jobs chan *piece
	wg   sync.WaitGroup
	once sync.Once
	quit chan struct{}
}

func newWorkers(n int) *workers {
	w := &workers{n: n, jobs: make(chan *piece), quit: make(chan struct{})}
	for range n - 1 {
		w.wg.Go(w.loop)
	}
	return w
}

func (w *workers) loop() {
	for {
		select {
		case c := <-w.jobs:
			c.run()
		case <-w.quit:
			return
		}
	}
}

// idle estimates the cores that have nothing to do while active reads are under way.
func (w *workers) idle(active int64) int { return w.n - int(min(active, int64(w.n))) }

// run gives a piece to an idle worker, or does it here.
func (w *workers) run(c *piece, given *atomic.Int64) {
	select {
	case w.jobs <- c:
		given.Add(1)
	default:
		c.run()
	}
}

func (w *workers) close() {
	w.once.Do(func() { close(w.quit) })
	w.wg.Wait()
}
