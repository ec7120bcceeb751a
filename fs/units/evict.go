package units

import (
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// trim evicts what is beyond the budget.
func (c *Cache) trim() {
	for (c.used > c.budget || c.closed) && c.evictOne(nil) {
	}
}

// evictOne throws one unit out, to make room for a session, for a prefetch (prefetching), or because there
// are too many (nil). A prefetch spares what was read to its end, too, as long as its stream is near: under memory
// pressure the kernel drops pages that it read ahead, and asks again.
func (c *Cache) evictOne(s *Read) bool {
	if c.evictFrom(c.spent, (*entry).passed) || s != prefetching && c.evictFrom(c.spent, anyEntry) {
		return true
	}
	if s == nil {
		return c.evictFrom(c.idle, anyEntry)
	}
	now := time.Now()
	return c.evictFrom(c.idle, func(old *entry) bool { return c.evictable(old, s, now) })
}

func anyEntry(*entry) bool { return true }

// evictFrom throws out the oldest unit that is not pinned and of which ok says so.
// Those passed over are in use, so they become the newest.
func (c *Cache) evictFrom(lru *simplelru.LRU[expr.UnitKey, *entry], ok func(*entry) bool) bool {
	for range lru.Len() {
		key, e, _ := lru.GetOldest()
		if e.pins == 0 && ok(e) {
			c.evict(e)
			return true
		}
		lru.Get(key)
	}
	return false
}

const (
	minSpent   = 64 << 20
	maxSpent   = 256 << 20
	recycleTry = 8 // units that recycle looks at
)

// recycle throws out units that were read to their end, oldest first, once they are many and their streams
// are far beyond, although there is room: what was read is in the kernel's cache, and their memory is used again for
// what comes next. New memory is dear, most of all in a virtual machine, whose host has to find it, too: one stream past
// the page cache went at 1.3 GB/s with new memory for each unit of 14.7 MB, and at 3.1 with the same memory again.
func (c *Cache) recycle() {
	for range min(recycleTry, c.spent.Len()) {
		if c.spentBytes <= c.keepSpent {
			return
		}
		key, e, _ := c.spent.GetOldest()
		if e.pins > 0 || !e.passed() {
			c.spent.Get(key) // it becomes the newest
			continue
		}
		c.evict(e)
	}
}

// evict frees a unit.
func (c *Cache) evict(e *entry) {
	delete(c.entries, e.key)
	c.idle.Remove(e.key)
	if c.spent.Remove(e.key) {
		c.spentBytes -= e.size
	}
	c.ghosts.Add(e.key, ghost{e.isSpent(), e.clock, e.span, e.read})
	e.state = gone
	c.used -= e.size
	c.buffers.put(e.buf)
	e.buf = nil
	c.counters.evictions.Add(1)
	c.check()
}

// ghost is what is remembered of an evicted unit.
type ghost struct {
	spent bool
	clock int64
	span  span
	read  int64
}

// passed says whether the stream that read the unit is beyond it by more than the
// kernel reads ahead out of order, twice.
func (e *entry) passed() bool {
	return e.span.file != nil && e.span.file.Beyond(e.run, e.span.hi+behind)
}

// prefetching stands for whoever fetches ahead where room is made for a session.
var prefetching = new(Read)

// evictable says whether an idle unit may make room for a session.
func (c *Cache) evictable(old *entry, s *Read, now time.Time) bool {
	since := c.clock.Load() - old.clock // in reads
	switch {
	case old.passed():
		return true
	case s == prefetching:
		return since > 4096 || !old.prefetch && !old.stream && since > 1024
	case old.stream || old.prefetch:
		return now.Sub(old.touched) > c.grace || !s.queued.IsZero() && now.Sub(s.queued) > c.patience
	}
	return true
}
