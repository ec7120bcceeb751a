package fs

import (
	"sync"

	"github.com/dequantfs/dequantfs/fs/units"
)

const (
	regionShift = 22  // regions of 4 MiB
	maxStreams  = 128 // of a file
)

// streams tells sequential reading from random reading by offsets. Readers cannot be told apart:
// processes share handles, and the kernel reads ahead out of order and on many threads.
type streams struct {
	mu    sync.Mutex
	slots [maxStreams]stream
	n     int     // slots in use
	clock []int64 // of the last read of each region; 0: never

	coming *lead // of the stream that is expected from the file before; nil: none
}

// stream is a series of reads that go forward.
type stream struct {
	front int64 // end of what was read
	start int64 // clock when it began; identifies it
	clock int64 // of its last read
	reads int64 // their number
	bytes int64 // their bytes together

	claimed, dropped int64 // see claim, drop

	lead lead
}

// enough is how many reads make a stream. Random reads are sometimes near an older one by chance,
// so two are not enough.
const enough = 4

// touch records a read of [off, off+n) at clock, and returns its place among the reads.
func (t *streams) touch(size, off, n, clock int64) units.Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clock == nil {
		t.clock = make([]int64, (size-1)>>regionShift+1)
	}
	for i := off >> regionShift; i <= (off+n-1)>>regionShift; i++ {
		t.clock[i] = clock
	}
	slot := t.nearest(off, n)
	r := units.Run{Clock: clock, Slot: slot, Sequential: true}
	if slot < 0 {
		r.Slot, r.Sequential = t.oldest(), false
		t.slots[r.Slot] = stream{front: off, start: clock, claimed: off, dropped: off}
	}
	s := &t.slots[r.Slot]
	if t.coming != nil && s.front <= comesWithin {
		s.expected(t.coming)
		t.coming = nil
	}
	s.reads++
	s.bytes += n
	r.Start, r.Leads = s.start, off+n > s.front && s.reads >= enough
	s.clock, s.front = clock, max(s.front, off+n)
	return r
}

// nearest returns the slot of the stream that a read continues, or -1. It allows for reads that are
// out of order.
func (t *streams) nearest(off, n int64) int {
	best, slot := 4*n+1, -1
	for i := range t.slots[:t.n] {
		if d := max(off-t.slots[i].front, t.slots[i].front-off); d < best {
			best, slot = d, i
		}
	}
	return slot
}

// oldest returns a slot for a new stream: a free one, or that of the stream that was read least
// recently.
func (t *streams) oldest() int {
	if t.n < maxStreams {
		t.n++
		return t.n - 1
	}
	slot := 0
	for i := range t.slots {
		if t.slots[i].clock < t.slots[slot].clock {
			slot = i
		}
	}
	return slot
}

// progress describes a stream.
type progress struct {
	start int64 // clock when it began
	bytes int64 // that it has read
	leads bool  // the last read of it was its furthest
}

// around describes the stream of a read of [off, off+n), if it is not forgotten.
func (t *streams) around(off, n int64) progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.nearest(off, n)
	if i < 0 {
		return progress{}
	}
	s := &t.slots[i]
	return progress{s.start, s.bytes, s.reads >= enough && s.front <= off+n}
}

// beyond reports whether the stream of r has read on to at, or is forgotten.
func (t *streams) beyond(r units.Run, at int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slots[r.Slot]
	return s.start != r.Start || s.front >= at
}

// until returns where in [from, to) the first region begins that was read at or after clock, or to.
func (t *streams) until(from, to, clock int64) int64 {
	for at := from; at < to; at = (at>>regionShift + 1) << regionShift {
		if t.visited(at, 1, clock) {
			return at
		}
	}
	return to
}

// visited reports whether a byte of [off, off+n) was read at or after clock.
func (t *streams) visited(off, n, clock int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := off >> regionShift; i <= (off+n-1)>>regionShift && i < int64(len(t.clock)); i++ {
		if t.clock[i] >= clock {
			return true
		}
	}
	return false
}
