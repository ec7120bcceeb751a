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

	loading int           // blocks being loaded, guarded by blocks.mu; see depth
	took    time.Duration // what loads took of late

	once sync.Once
	seen []atomic.Uint64 // a bit for each region that was loaded, see again
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

// stuck says whether a session waits for a stalled file.
func (s *session) stuck() bool {
	for _, e := range s.held {
		if e.shelved {
			return true
		}
	}
	return false
}

// shelve takes fills whose source is stalled out of the account: they must not keep others waiting.
// There is no more of that than the budget, since no fill of a stalled file begins.
func (c *cache) shelve() {
	for _, e := range c.entries {
		if e.state == filling && !e.shelved && c.fs.sources.isStalled(e.key.File) {
			e.shelved = true
			c.used -= e.size
			c.filling -= e.size
			c.shelved += e.size
		}
	}
	c.check()
}

// unshelve takes a fill that has ended back into the account.
func (c *cache) unshelve(e *entry) {
	if e.shelved {
		e.shelved = false
		c.shelved -= e.size
		c.used += e.size
		c.filling += e.size
	}
}
