package fs

import (
	"math/bits"
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

// lately returns a bit for each place of which a stream has given a sign lately.
func (c *crowd) lately(now time.Time) (set uint64) {
	since := now.Add(-pause).UnixNano()
	for i := range c.seen {
		if c.seen[i].Load() >= since {
			set |= 1 << i
		}
	}
	return set
}

// waiting returns the same bits for the streams of the sessions under way.
func (l *live) waiting() (set uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := l.head; s != nil; s = s.next {
		set |= 1 << (uint64(s.run.Start) % 64)
	}
	return set
}

// spare reports whether fetching units ahead makes readers faster. If other streams use all cores,
// it only takes memory. Over a network it also saves waiting.
func (f *FS) spare() bool {
	streams := bits.OnesCount64(f.crowd.lately(time.Now()) | f.live.waiting())
	return f.network != nil || f.workers.idle(int64(streams)-1) > 0
}

// busy estimates how many cores readers use.
func (f *FS) busy(now time.Time) int64 {
	return max(f.counters.active.Load(), int64(bits.OnesCount64(f.crowd.lately(now))))
}
