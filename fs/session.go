package fs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

const (
	minPiece  = 128 << 10 // the least that is worth another core
	maxPieces = 16
)

// session is one read of a file.
type session struct {
	fs   *FS
	file *file
	off  int64
	n    int64
	run  units.Run
	read *units.Read           // what it holds of the cache
	want func(*expr.Unit) bool // wanted
	wg   sync.WaitGroup

	began      time.Time
	slow       bool     // it was logged as slow; guarded by live.mu, as the next two are
	prev, next *session // see live

	pieces [maxPieces]piece
}

// piece is a part of a read.
type piece struct {
	s   *session
	p   []byte
	off int64
	err error
}

func newSession(f *FS) *session {
	s := &session{fs: f, read: f.units.NewRead()}
	s.want = s.wanted
	return s
}

// session begins a read.
func (f *FS) session(ctx context.Context, at *file, off, n int64) *session {
	s := f.sessions.Get().(*session)
	s.file, s.off, s.n = at, off, n
	s.run = at.streams.touch(at.Size(), off, n, f.units.Tick())
	s.read.Begin(ctx, at, off, n, s.run)
	f.live.add(s)
	return s
}

// end gives back what the session holds. served says whether the read went well.
func (s *session) end(served bool) {
	s.fs.live.remove(s)
	took := time.Since(s.began)
	s.fs.counters.latency[s.file.kindOf(s.off)].add(took)
	if took > s.fs.options.slowAfter {
		s.fs.sayslow("a read took long", append(s.about(took), s.read.Waited()...)...)
	}
	s.read.End(served)
	s.file = nil
	s.fs.sessions.Put(s)
}

// acquire pins the units that the read needs.
func (s *session) acquire() error {
	s.file.units(s.off, s.n, s.want)
	return s.read.Acquire()
}

// wanted passes a unit that the read needs on to the cache.
func (s *session) wanted(u *expr.Unit) bool {
	s.read.Want(u)
	return true
}

// readAt reads p and fetches ahead of what looks sequential.
func (s *session) readAt(p []byte) error {
	if s.run.Leads {
		s.readAhead() // before it waits for what it needs itself
	}
	if err := s.acquire(); err != nil {
		return fmt.Errorf("%s: %w", s.file.name, err)
	}
	if err := s.fill(p); err != nil {
		return err
	}
	if s.run.Leads {
		s.fetchAhead()
		s.dropBehind()
	}
	return nil
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
		err = or(err, pieces[i].err)
		pieces[i] = piece{}
	}
	return err
}

// split cuts a read into pieces for the cores that have nothing to do.
func (s *session) split(p []byte) []piece {
	n := min(s.fs.workers.idle(s.fs.counters.active.Load())+1, len(p)/minPiece, maxPieces)
	if n <= 1 {
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

// run reads the piece; it never panics.
func (c *piece) run() {
	defer c.s.wg.Done()
	c.err = c.s.file.fill(c.s.read, c.p, c.off)
}
