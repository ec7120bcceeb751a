package fs

import (
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

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

// at says what stands at an offset.
func (f *file) at(off int64) string {
	if i := f.segment(off); i > 0 && i < len(f.segments) {
		return f.name + ": " + f.segments[i].key
	}
	return f.name + ": header"
}

// kindOf says what reading at off has to do.
func (f *file) kindOf(off int64) kind {
	i := f.segment(off)
	if i == 0 || i >= len(f.segments) {
		return kindHeader
	}
	known := &f.segments[i].kind
	if k := known.Load(); k != 0 {
		return kind(k)
	}
	k := kindIdentity
	n := f.segments[i].node
	if !n.Units(0, min(n.Size(), probeWidth), func(u *expr.Unit) bool { return u.Key().Kind != expr.Transposed }) {
		k = kindTranspose
	} else if n.Decodes() {
		k = kindDequantize
	}
	known.Store(uint32(k))
	return k
}
