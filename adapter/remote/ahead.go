package remote

import (
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// ahead begins to fetch a range without waiting. It reports whether all of it is in memory, is on
// its way, or was begun.
func (t *table) ahead(off, n int64) bool {
	f := t.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	off, end := max(off, 0), min(off+n, t.object.size)
	if t.closed || f.closed || !t.divided() {
		return false
	}
	now := time.Now()
	t.asked = now.UnixNano()
	f.streams[t] = true
	defer f.schedule()
	for _, s := range t.spans(off, max(end-off, 0)) {
		if !f.early(t.block(s)) {
			return false
		}
	}
	return true
}

// early begins to fetch a block, if there is memory for it.
func (f *fetcher) early(b *block) bool {
	if b.state != idle {
		return true
	}
	if b.buf = f.take(b.n, true); b.buf == nil {
		b.table.forget(b)
		return false
	}
	b.early = true
	f.enqueue(b, false)
	return true
}

// Bounds of distance.
const (
	leastDistance = 64 << 20
	mostStreams   = 8               // that the budget is divided among
	streamTime    = 5 * time.Second // without a call of ahead until a file is not read any more
)

// distance is how far ahead of a reader bytes are worth fetching.
//
// The rate times the time that a request takes is what is in flight now. Twice as much lets the
// rate grow, and the limit of requests bounds it, since that follows the rate. Half of the budget
// is divided among the files that are being read ahead.
func (f *fetcher) distance() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for t := range f.streams {
		if t.closed || now.UnixNano()-t.asked > int64(streamTime) {
			delete(f.streams, t)
		}
	}
	flying := int64(2 * f.meter.rate(now) * f.speeds.duration())
	want := max(leastDistance, min(flying, int64(f.limit.size)*blockSize))
	share := f.memory.most / 2 / int64(min(max(len(f.streams), 1), mostStreams))
	return max(min(want, share), 1)
}

// traffic counts what was transferred.
func (f *fetcher) traffic() source.Traffic {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &f.counts
	return source.Traffic{
		Bytes: c.bytes, Requests: c.requests, Retries: c.retries, Throttled: c.throttled,
		InFlight: int64(len(f.flights)), AtOnce: int64(f.limit.size),
		Rate:   f.meter.rate(time.Now()),
		Memory: f.memory.used + f.memory.freeBytes, MemoryLimit: f.memory.most,
		CacheHits: c.hits, CacheMisses: c.misses, CacheBytes: c.cacheBytes,
	}
}
