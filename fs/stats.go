package fs

import "sync/atomic"

// counters are what a filesystem counts while it runs.
type counters struct {
	bytes, reads                     atomic.Int64
	requests, interrupted, errors    atomic.Int64
	panics                           atomic.Int64
	sourceBytes, preads              atomic.Int64
	hits, misses, fills, fillErrors  atomic.Int64
	prefetches, evictions, refetches atomic.Int64
	active, splits                   atomic.Int64
}

// Stats is a snapshot of what a filesystem has done and holds.
type Stats struct {
	Bytes    int64 `json:"bytes"`    // given to readers
	Reads    int64 `json:"reads"`    // calls of ReadAt, READ requests among them
	Requests int64 `json:"requests"` // READ requests of the kernel
	Active   int64 `json:"active"`   // reads under way
	Splits   int64 `json:"splits"`   // pieces of reads given to other cores

	SourceBytes int64 `json:"source_bytes"` // read from source files
	Preads      int64 `json:"preads"`       // calls that read them
	Stalled     int64 `json:"stalled"`      // source files that have not answered for seconds

	Errors      int64 `json:"errors"`      // reads that failed
	Interrupted int64 `json:"interrupted"` // reads given up by the reader
	Panics      int64 `json:"panics"`      // caught, each given to its readers as an error

	Hits       int64 `json:"hits"`        // units found in the cache
	Misses     int64 `json:"misses"`      // units that had to be waited for
	Fills      int64 `json:"fills"`       // units computed
	FillErrors int64 `json:"fill_errors"` // units that failed
	Prefetches int64 `json:"prefetches"`  // fills that nobody waited for when they began
	Evictions  int64 `json:"evictions"`   // units thrown out
	Refetches  int64 `json:"refetches"`   // units filled again that had been thrown out before they were read to their end

	CacheBudget int64 `json:"cache_budget"` // bytes
	CacheUsed   int64 `json:"cache_used"`   // bytes: pinned, filling and idle
	Pinned      int64 `json:"pinned"`       // bytes in use by readers
	Filling     int64 `json:"filling"`      // bytes being computed
	Units       int64 `json:"units"`        // held
	Waiting     int64 `json:"waiting"`      // readers waiting for a unit
	TooSmall    bool  `json:"too_small"`    // the budget is too small for what is read at once
}

// Stats tells what the filesystem has done and holds.
func (f *FS) Stats() Stats {
	c := &f.counters
	s := Stats{
		Bytes: c.bytes.Load(), Reads: c.reads.Load(), Requests: c.requests.Load(),
		Active: c.active.Load(), Splits: c.splits.Load(),
		SourceBytes: c.sourceBytes.Load(), Preads: c.preads.Load(), Stalled: f.sources.stalled(),
		Errors: c.errors.Load(), Interrupted: c.interrupted.Load(), Panics: c.panics.Load(),
		Hits: c.hits.Load(), Misses: c.misses.Load(), Fills: c.fills.Load(), FillErrors: c.fillErrors.Load(),
		Prefetches: c.prefetches.Load(), Evictions: c.evictions.Load(), Refetches: c.refetches.Load(),
	}
	f.cache.stats(&s)
	return s
}
