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
	fs      *FS
	file    *file
	streams *streams
	off     int64
	n       int64
	run     units.Run
	read    *units.Read           // its units and other holdings in the cache
	want    func(*expr.Unit) bool // wanted
	wg      sync.WaitGroup

	began      time.Time
	slow       bool     // it was logged as slow; guarded by live.mu, like prev and next
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
	s := f.begin(ctx, at, &at.streams, off, n)
	f.live.add(s)
	if s.run.Leads {
		f.crowd.touch(s.run.Start, s.began)
	}
	return s
}

// begin begins a read that belongs to one of these streams.
func (f *FS) begin(ctx context.Context, at *file, of *streams, off, n int64) *session {
	s := f.sessions.Get().(*session)
	s.file, s.streams, s.off, s.n = at, of, off, n
	s.run = of.touch(at.Size(), off, n, f.units.Tick())
	s.read.Modest = s.modest()
	s.read.Begin(ctx, at, off, n, s.run)
	return s
}

// modest reports whether the session is of a forerun.
func (s *session) modest() bool { return s.streams == &s.file.ahead }

// end ends a read of a reader. served reports whether it succeeded.
func (s *session) end(served bool) {
	s.fs.live.remove(s)
	now := time.Now()
	took := now.Sub(s.began)
	if s.run.Leads {
		s.fs.crowd.touch(s.run.Start, now)
	}
	s.fs.counters.latency[s.file.kindOf(s.off)].add(took)
	if took > s.fs.options.slowAfter {
		s.fs.sayslow("a read took long", append(s.about(took), s.read.Waited()...)...)
	}
	s.finish(served)
}

// finish releases all that the session holds.
func (s *session) finish(served bool) {
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

// readAt reads p and, if reading is sequential, fetches ahead.
func (s *session) readAt(p []byte) error {
	if s.run.Leads { // before it waits for its own units
		if s.fs.network != nil {
			s.lead()
		} else {
			s.readAhead()
		}
	}
	if err := s.acquire(); err != nil {
		return fmt.Errorf("%s: %w", s.file.name, err)
	}
	if err := s.fill(p); err != nil {
		return err
	}
	if s.run.Leads {
		if s.fs.spare() {
			s.fetchAhead()
		}
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

// maxReading is the most reads that Stats describes.
const maxReading = 8

// stats adds the reads under way.
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
