package units

import "github.com/dequantfs/dequantfs/adapter/expr"

const aheadBytes = 32 << 20 // of units that are fetched before a stream needs them

// ahead counts the units that were seen ahead of a read.
type ahead struct {
	bytes, limit int64 // of the units seen ahead
	count        int
}

// Ahead begins to look for units that the stream will need soon. The caller passes each of them to
// the returned function, in the order of the file, until the function returns false.
func (r *Read) Ahead() func(*expr.Unit) bool {
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	r.ahead = ahead{limit: min(aheadBytes, r.cache.budget/2)}
	return r.fetch
}

// fetchAhead fetches one unit if it is missing and there is room for it.
func (r *Read) fetchAhead(u *expr.Unit) bool {
	if r.find(u.Key()) != nil {
		return true
	}
	a := &r.ahead
	a.bytes += taken(u)
	if a.count++; a.count > 2 && a.bytes > a.limit {
		return false
	}
	return r.cache.prefetch(u, r.run.Start)
}

// Missing reports whether the source bytes of a unit will be read: it is neither present nor being
// filled, and was not read to its end since the stream of this read began.
func (r *Read) Missing(u *expr.Unit) bool {
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[u.Key()] != nil {
		return false
	}
	old, ok := c.ghosts.Peek(u.Key())
	return !ok || !old.spent || old.clock < r.run.Start
}

// prefetch begins to fill a unit if that evicts nothing that a stream may still read. It reports
// whether the unit is present or being filled. It does not fetch a unit again that was read to its
// end since the stream began.
func (c *Cache) prefetch(u Unit, since int64) bool {
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
	if c.files.isStalled(u.Key().File) {
		return false
	}
	c.counters.prefetches.Add(1)
	c.start(u, false).prefetch = true
	c.prove()
	return true
}
