package fs

import "github.com/dequantfs/dequantfs/adapter/expr"

const (
	aheadBytes  = 32 << 20  // of units fetched before a stream needs them
	aheadWindow = 128 << 20 // of the file, how far to look for them
)

// ahead fetches the units that a stream is about to need.
type ahead struct {
	s     *session
	yield func(*expr.Unit) bool
	bytes int64 // of the units seen ahead
	count int
	limit int64
}

func (a *ahead) init(s *session) {
	a.s = s
	a.yield = a.unit
}

// fetch looks on from where the session's read ended. It stops where somebody else has been
// since the stream began: what is there is in the kernel's cache, or theirs to fetch.
func (a *ahead) fetch() {
	s := a.s
	f := s.file
	at := s.off + s.n
	a.bytes, a.count, a.limit = 0, 0, min(aheadBytes, s.fs.cache.budget/2)
	end := min(at+aheadWindow, f.Size())
	for i := f.segment(at); i < len(f.ends) && at < end; i++ {
		for at < min(f.ends[i], end) {
			n := min(f.ends[i]-at, 1<<regionShift-at&(1<<regionShift-1))
			if at>>regionShift > (s.off+s.n-1)>>regionShift && f.streams.visited(at, n, s.run.start) {
				return
			}
			if i > 0 && !f.segments[i].node.Units(at-f.ends[i-1], n, a.yield) {
				return
			}
			at += n
		}
	}
}

// unit fetches one unit if it is not there and there is room for it.
func (a *ahead) unit(u *expr.Unit) bool {
	for _, e := range a.s.held {
		if e.key == u.Key() {
			return true
		}
	}
	a.bytes += taken(u)
	if a.count++; a.count > 2 && a.bytes > a.limit {
		return false
	}
	return a.s.fs.cache.prefetch(u, a.s.run.start)
}

// prefetch begins to fill a unit if that needs nothing that a stream may still read.
// It says whether the unit is there, or on its way. Units that somebody has read to the end since the
// stream began are not fetched again.
func (c *cache) prefetch(u unit, since int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.entries[u.Key()] != nil {
		return true
	}
	if old, ok := c.ghosts.Peek(u.Key()); ok && old.spent && old.clock >= since {
		return false
	}
	for c.used+taken(u) > c.budget {
		if len(c.queue) > 0 || !c.evictOne(prefetching) {
			return false
		}
	}
	if c.fs.sources.isStalled(u.Key().File) {
		return false
	}
	c.fs.counters.prefetches.Add(1)
	c.start(u, false).prefetch = true
	c.check()
	return true
}
