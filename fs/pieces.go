package fs

import (
	"cmp"
	"sync"
	"sync/atomic"
)

const (
	minPiece  = 128 << 10 // the least that is worth another core
	maxPieces = 16
)

// piece is a part of a read.
type piece struct {
	s   *session
	p   []byte
	off int64
	err error
}

// fill fills p, with the help of idle cores if p is large.
func (s *session) fill(p []byte) error {
	pieces := s.split(p)
	if len(pieces) == 1 {
		return s.file.fill(s.read, p, s.off)
	}
	s.wg.Add(len(pieces))
	for i := range pieces[1:] {
		s.fs.workers.run(&pieces[1+i], &s.fs.counters.splits)
	}
	pieces[0].run()
	s.wg.Wait()
	var err error
	for i := range pieces {
		err = cmp.Or(err, pieces[i].err)
		pieces[i] = piece{}
	}
	return err
}

// split cuts a read into pieces for idle cores.
func (s *session) split(p []byte) []piece {
	n := min(s.fs.workers.idle(s.fs.busy(s.began))+1, len(p)/minPiece, maxPieces)
	if n <= 1 || s.modest() {
		return s.pieces[:1]
	}
	size := (len(p)/n + 4095) &^ 4095
	pieces := s.pieces[:0]
	for at := 0; at < len(p); at += size {
		q := p[at:min(len(p), at+size)]
		pieces = append(pieces, piece{s: s, p: q, off: s.off + int64(at)})
	}
	return pieces
}

// run reads the piece. It never panics.
func (c *piece) run() {
	defer c.s.wg.Done()
	c.err = c.s.file.fill(c.s.read, c.p, c.off)
}

// workers are goroutines that help large reads. They only take a piece that they can begin at once.
// If no worker is idle, the reader does the work itself.
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

// idle estimates how many cores are idle while readers use so many.
func (w *workers) idle(busy int64) int { return w.n - int(min(busy, int64(w.n))) }

// run gives a piece to an idle worker. Without an idle worker it reads the piece itself.
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
