package units

import (
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// trim evicts units until the budget is kept.
func (c *Cache) trim() {
	for (c.used > c.budget || c.closed) && c.evictOne(nil) {
	}
}

// evictOne evicts one unit to make room for a read. The read is the sentinel prefetching for a
// prefetch. It is nil if the units exceed the budget.
//
// A prefetch spares units that were read to their end while their stream is near. Under memory
// pressure the kernel drops pages that it read ahead, and asks for them again.
func (c *Cache) evictOne(r *Read) bool {
	if r != nil && r.Modest {
		r = prefetching
	}
	if c.evictFrom(c.spent, (*entry).passed) || r != prefetching && c.evictFrom(c.spent, anyEntry) {
		return true
	}
	if r == nil {
		return c.evictFrom(c.idle, anyEntry)
	}
	now := time.Now()
	return c.evictFrom(c.idle, func(old *entry) bool { return c.evictable(old, r, now) })
}

func anyEntry(*entry) bool { return true }

// evictFrom evicts the oldest unit that is not pinned and that ok accepts. All others that it looks
// at are in use, so they become the newest.
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
	recycleTry = 8 // units that recycle examines
)

// recycle evicts units that were read to their end if they are many and their streams are far
// ahead. It does so even if there is room. The kernel has cached the results, and new units reuse
// the memory. Allocating is expensive: the kernel clears each page on first touch.
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
	c.prove()
}

// ghost records facts about an evicted unit.
type ghost struct {
	spent bool
	clock int64
	span  span
	read  int64
}

// passed reports whether the stream that read the unit is far ahead of it. Far is twice as much as
// the kernel reads ahead out of order.
func (e *entry) passed() bool {
	return e.span.file != nil && e.span.file.Beyond(e.run, e.span.hi+behind)
}

// prefetching is the sentinel read that makes room for a prefetch.
var prefetching = new(Read)

// evictable reports whether an idle unit may be evicted to make room for a read.
func (c *Cache) evictable(old *entry, r *Read, now time.Time) bool {
	since := c.clock.Load() - old.clock // in reads
	switch {
	case old.passed():
		return true
	case r == prefetching:
		return since > 4096 || !old.prefetch && !old.stream && since > 1024
	case old.stream || old.prefetch:
		return now.Sub(old.touched) > c.grace || !r.queued.IsZero() &&
			now.Sub(r.queued) > c.patience
	}
	return true
}
