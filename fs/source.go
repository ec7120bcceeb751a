package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// stallAfter is how long a source file may leave a read unanswered before it counts as stalled.
const stallAfter = 2 * time.Second

// sources watches the source files that are being read.
type sources struct{ m sync.Map } // expr.File → *source

// source is what is known of one source file.
type source struct {
	inflight atomic.Int64
	since    atomic.Int64 // unix ns: when reads began to be under way, or one last ended
}

func (s *sources) of(f expr.File) *source {
	if w, ok := s.m.Load(f); ok {
		return w.(*source)
	}
	w, _ := s.m.LoadOrStore(f, new(source))
	return w.(*source)
}

// begin notes a read.
func (w *source) begin() {
	if w.inflight.Add(1) == 1 {
		w.since.Store(time.Now().UnixNano())
	}
}

// end notes the end of a read.
func (w *source) end(now time.Time) {
	w.since.Store(now.UnixNano())
	w.inflight.Add(-1)
}

// stalled says whether reads are under way of which none has ended for stallAfter.
func (w *source) stalled(now time.Time) bool {
	return w.inflight.Load() > 0 && now.UnixNano()-w.since.Load() > int64(stallAfter)
}

// stalled counts the files that are stalled.
func (s *sources) stalled() (n int64) {
	now := time.Now()
	s.m.Range(func(_, w any) bool {
		if w.(*source).stalled(now) {
			n++
		}
		return true
	})
	return n
}

// isStalled says whether a file is stalled.
func (s *sources) isStalled(f expr.File) bool {
	w, ok := s.m.Load(f)
	return ok && w.(*source).stalled(time.Now())
}
