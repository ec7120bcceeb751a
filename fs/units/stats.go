package units

import "sync/atomic"

// counters count the work of a cache.
type counters struct {
	hits, misses, fills, fillErrors  atomic.Int64
	prefetches, evictions, refetches atomic.Int64
	unused, unannounced              atomic.Int64
	saturated, infinite              atomic.Int64
}

// Stats is a snapshot of what a cache has done and holds.
type Stats struct {
	// Reads of the source. ReadAhead is held for streams of row-contiguous recipes. Unused bytes
	// were read ahead but not needed. Stalled files have not answered for seconds.
	SourceBytes int64 `json:"source_bytes"`
	Preads      int64 `json:"preads"`
	ReadAhead   int64 `json:"read_ahead"` // bytes
	Unused      int64 `json:"unused"`     // bytes
	Stalled     int64 `json:"stalled"`    // files

	// Panics that were caught. Each was returned to its readers as an error.
	Panics int64 `json:"panics"`

	// Values that a narrower dtype could not hold, counted each time they are computed. Saturated
	// ones are beyond the largest FP8 code, Infinite ones become infinite in F16.
	Saturated int64 `json:"saturated"`
	Infinite  int64 `json:"infinite"`

	Hits        int64 `json:"hits"`        // units found in the cache
	Misses      int64 `json:"misses"`      // units that had to be waited for
	Unannounced int64 `json:"unannounced"` // units that no recipe announced: a defect
	Fills       int64 `json:"fills"`       // units computed
	FillErrors  int64 `json:"fill_errors"` // units that failed
	Prefetches  int64 `json:"prefetches"`  // fills that began before a reader needed them
	Evictions   int64 `json:"evictions"`   // units evicted
	Refetches   int64 `json:"refetches"`   // fills of units evicted before their end was read

	CacheBudget int64 `json:"cache_budget"` // bytes
	CacheUsed   int64 `json:"cache_used"`   // bytes: pinned, filling and idle
	Pinned      int64 `json:"pinned"`       // bytes in use by readers
	Filling     int64 `json:"filling"`      // bytes being computed
	Units       int64 `json:"units"`        // held
	Waiting     int64 `json:"waiting"`      // readers waiting for a unit
	TooSmall    bool  `json:"too_small"`    // the budget is too small for the reads under way
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	n := &c.counters
	s := Stats{
		SourceBytes: c.files.bytes.Load(), Preads: c.files.reads.Load(),
		Unused: n.unused.Load(), Stalled: c.files.stalled(), Panics: c.guard.panics.Load(),
		Saturated: n.saturated.Load(), Infinite: n.infinite.Load(),
		Hits: n.hits.Load(), Misses: n.misses.Load(),
		Unannounced: n.unannounced.Load(), Fills: n.fills.Load(),
		FillErrors: n.fillErrors.Load(), Prefetches: n.prefetches.Load(),
		Evictions: n.evictions.Load(), Refetches: n.refetches.Load(),
	}
	c.addUnits(&s)
	c.blocks.stats(&s)
	return s
}
