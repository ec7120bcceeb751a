package fs

import "sync"

const (
	regionShift = 22       // regions of 4 MiB
	nearRegions = 4        // a kernel's read-ahead of 16 MiB
	behind      = 32 << 20 // units this close behind a stream are still its own
	liveReads   = 1 << 16  // a run that was not read for so many reads is over
)

// regions remember when each part of a file was last read, and in which run of
// sequential reading. They, not file handles, say what is sequential: processes
// share handles, and the kernel reads ahead out of order and on many threads.
type regions struct {
	mu sync.Mutex
	r  []region
}

// region is 4 MiB of a file.
type region struct {
	clock int64 // of the last read; 0: never
	start int64 // clock when the run that it belongs to began
	bytes int64 // read in this run
	last  int64 // end of the last read
}

// run is what a read is part of.
type run struct {
	clock, start int64
	sequential   bool // the read goes on where others read before
	front        bool // no read of the run was further on
	fresh        bool // it is the run's first in its region
}

// touch notes a read of [off, off+n) at clock and tells what it is part of.
func (t *regions) touch(size, off, n, clock int64) (r run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.r == nil {
		t.r = make([]region, (size-1)>>regionShift+1)
	}
	first, last := off>>regionShift, (off+n-1)>>regionShift
	for i := first; i <= last; i++ {
		lo, hi := max(off, i<<regionShift), min(off+n, (i+1)<<regionShift)
		r.fresh = t.join(i, clock) || r.fresh
		r.sequential = r.sequential || t.follows(i, lo, n)
		t.r[i].clock, t.r[i].last = clock, hi
		t.r[i].bytes += hi - lo
	}
	r.clock, r.start = clock, t.r[last].start
	r.front = !t.since(last+1, last+nearRegions, r.start)
	return r
}

// follows says whether a read of n bytes at off, in region i, is next to one of its run, allowing for
// some disorder.
func (t *regions) follows(i, off, n int64) bool {
	for j := max(0, i-nearRegions); j <= i; j++ {
		if p := t.r[j]; p.bytes > 0 && p.start == t.r[i].start && off >= p.last-4*n && off <= p.last+4*n {
			return true
		}
	}
	return false
}

// join makes region i part of the run that is being read before it, or of a new one,
// unless it is part of a live one already. It says whether it was new to the run.
func (t *regions) join(i, clock int64) bool {
	at := &t.r[i]
	best := int64(0)
	start := clock
	for j := max(0, i-nearRegions); j < i; j++ {
		if p := t.r[j]; p.clock > best && clock-p.clock < liveReads {
			best, start = p.clock, p.start
		}
	}
	again := best == 0 && at.clock > 0 && clock-at.clock < liveReads && at.bytes < 1<<regionShift
	if at.clock >= start || again {
		return false // this pass was here already
	}
	at.start, at.bytes = start, 0
	return true
}

// since says whether one of the regions [i, j] was read at or after clock.
func (t *regions) since(i, j, clock int64) bool {
	for ; i <= j && i < int64(len(t.r)); i++ {
		if t.r[i].clock >= clock {
			return true
		}
	}
	return false
}

// visited is since for the regions of [off, off+n).
func (t *regions) visited(off, n, clock int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.since(off>>regionShift, (off+n-1)>>regionShift, clock)
}
