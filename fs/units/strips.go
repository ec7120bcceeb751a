package units

import (
	"context"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// strips limits how many strips of units are computed at once, since each takes memory. Strips of
// stalled files do not count, so they do not delay readers of other files.
type strips struct {
	files *files

	mu    sync.Mutex
	most  int
	begun map[expr.File]int
	freed chan struct{} // closed when a strip has ended; nil: no goroutine waits
}

// setMost changes the limit.
func (s *strips) setMost(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = n
	s.wake()
}

// begin waits until one more strip may be computed from a file. It returns false if ctx ends first.
func (s *strips) begin(ctx context.Context, f expr.File) bool {
	for {
		freed, ok := s.try(f)
		if ok {
			return true
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		case <-time.After(lookAgain): // a file may have stalled meanwhile
		}
	}
}

func (s *strips) try(f expr.File) (freed chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count() < s.most {
		if s.begun == nil {
			s.begun = map[expr.File]int{}
		}
		s.begun[f]++
		return nil, true
	}
	if s.freed == nil {
		s.freed = make(chan struct{})
	}
	return s.freed, false
}

// count returns the number of strips from files that answer.
func (s *strips) count() (n int) {
	for f, begun := range s.begun {
		if !s.files.isStalled(f) {
			n += begun
		}
	}
	return n
}

// end ends a strip from a file, which makes room for another one.
func (s *strips) end(f expr.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun[f]--; s.begun[f] == 0 {
		delete(s.begun, f)
	}
	s.wake()
}

func (s *strips) wake() {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}
