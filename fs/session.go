package fs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
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

// live is the list of sessions under way.
type live struct {
	mu   sync.Mutex
	head *session
}

func (l *live) add(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.began, s.slow = time.Now(), false
	s.prev, s.next = nil, l.head
	if l.head != nil {
		l.head.prev = s
	}
	l.head = s
}

func (l *live) remove(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

// maxReading is how many reads Stats tells of.
const maxReading = 8

// stats adds what is being read.
func (l *live) stats(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := l.head; r != nil; r = r.next {
		s.OldestRequest = max(s.OldestRequest, time.Since(r.began))
		if len(s.Reading) < maxReading {
			s.Reading = append(s.Reading, r.file.at(r.off))
		}
	}
}
