package fs

import (
	"sync/atomic"
	"time"
)

// crowd estimates how many streams are read at this moment. The number of reads under way is too
// low for that: a reader that has just been answered copies the reply, and then asks again.
type crowd struct {
	seen [64]atomic.Int64 // unix ns of the last sign of a stream; streams share places by chance
}

// pause is how long a stream is counted after its last sign.
const pause = 2 * time.Millisecond

// touch records a sign of the stream that began at a clock.
func (c *crowd) touch(start int64, now time.Time) {
	c.seen[uint64(start)%uint64(len(c.seen))].Store(now.UnixNano())
}

// count returns how many streams have given a sign lately.
func (c *crowd) count(now time.Time) (n int64) {
	since := now.Add(-pause).UnixNano()
	for i := range c.seen {
		if c.seen[i].Load() >= since {
			n++
		}
	}
	return n
}

// spare reports whether fetching units ahead makes readers faster. If the other readers use all
// cores, it only takes memory. Over a network it also saves waiting.
func (f *FS) spare() bool {
	return f.network != nil || f.workers.idle(f.busy(time.Now())-1) > 0
}

// busy estimates how many cores readers use.
func (f *FS) busy(now time.Time) int64 {
	return max(f.counters.active.Load(), f.crowd.count(now))
}
