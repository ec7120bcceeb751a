package units

import (
	"slices"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// stallAfter is how long a source file may leave reads unanswered before it counts as stalled.
const stallAfter = 2 * time.Second

// stalled reports whether reads are under way and none has ended for stallAfter.
func (w *watch) stalled(now time.Time) bool {
	return w.inflight.Load() > 0 && now.UnixNano()-w.since.Load() > int64(stallAfter)
}

// stalled counts the files that are stalled.
func (s *files) stalled() (n int64) {
	now := time.Now()
	s.watches.Range(func(_, w any) bool {
		if w.(*watch).stalled(now) {
			n++
		}
		return true
	})
	return n
}

// isStalled reports whether a file is stalled.
func (s *files) isStalled(f expr.File) bool {
	w, ok := s.watches.Load(f)
	return ok && w.(*watch).stalled(time.Now())
}

// stuck reports whether a read holds a unit of a stalled file.
func (r *Read) stuck() bool {
	shelved := func(e *entry) bool { return e.shelved }
	return slices.ContainsFunc(r.held, shelved) || slices.ContainsFunc(r.late, shelved)
}

// shelve removes the fills of stalled files from the account, so other reads need not wait for
// them. Together they never exceed the budget, since no new fill of a stalled file begins.
func (c *Cache) shelve() {
	for _, e := range c.entries {
		if e.state == filling && !e.shelved && c.files.isStalled(e.key.File) {
			e.shelved = true
			c.used -= e.size
			c.filling -= e.size
			c.shelved += e.size
		}
	}
	c.prove()
}

// unshelve adds a shelved fill that has ended to the account again.
func (c *Cache) unshelve(e *entry) {
	if e.shelved {
		e.shelved = false
		c.shelved -= e.size
		c.used += e.size
		c.filling += e.size
	}
}
