package fs

import (
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

// Distances in a virtual file.
const (
	readAhead   = 32 << 20  // how far before a stream its source is read, see claim
	streamStep  = 4 << 20   // how far a stream goes before more is read ahead, or dropped
	aheadWindow = 128 << 20 // how far to look for units that a stream will need
	dropBehind  = 48 << 20  // how far behind a stream its source is dropped from the page cache
)

// readAhead reads what row-contiguous recipes will need of the source when the stream gets there.
func (s *session) readAhead() {
	from, to := s.file.streams.claim(s.run, readAhead, streamStep)
	if to = min(to, s.file.Size()); from >= to {
		return
	}
	s.file.ranges(from, to, func(f expr.File, off, n int64) bool {
		return s.read.ReadAhead(f, off, n, to)
	})
}

// fetchAhead looks on from where the read ended and fetches units that the stream will need. It
// stops where another reader has been since the stream began: what is there is in the kernel's
// cache, or for that reader to fetch.
func (s *session) fetchAhead() {
	f := s.file
	at := s.off + s.n
	end := min(at+aheadWindow, f.Size())
	fetch := s.read.Ahead()
	for i := f.segment(at); i < len(f.ends) && at < end; i++ {
		for at < min(f.ends[i], end) {
			n := min(f.ends[i]-at, 1<<regionShift-at&(1<<regionShift-1))
			if s.visitedAt(at, n) {
				return
			}
			if i > 0 && !f.segments[i].node.Units(at-f.ends[i-1], n, fetch) {
				return
			}
			at += n
		}
	}
}

// visitedAt reports whether another reader has been in [at, at+n) since the stream began.
func (s *session) visitedAt(at, n int64) bool {
	beyond := at>>regionShift > (s.off+s.n-1)>>regionShift
	return beyond && s.file.streams.visited(at, n, s.run.Start)
}

// dropBehind drops source bytes from the page cache that the stream has left behind.
func (s *session) dropBehind() {
	if s.fs.options.SourceCache != units.SourceDrop {
		return
	}
	from, to := s.file.streams.drop(s.run, dropBehind, streamStep)
	s.file.ranges(from, to, s.fs.units.Drop)
}

// ranges yields the ranges of source files that [from, to) reads without a unit.
func (f *file) ranges(from, to int64, yield func(expr.File, int64, int64) bool) {
	for i := f.segment(from); from < to && i < len(f.ends); i++ {
		end := min(to, f.ends[i])
		if i > 0 && !f.segments[i].node.Ranges(from-f.ends[i-1], end-from, yield) {
			return
		}
		from = end
	}
}

// claim gives the part before the front of the stream that has not been claimed yet, once it is a
// step. It reaches up to ahead beyond the front, but not twice as far as the stream has come.
func (t *streams) claim(r units.Run, ahead, step int64) (from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[r.Slot]
	from, to = max(s.claimed, s.front), s.front+min(ahead, 2*s.bytes)
	if s.start != r.Start || to-from < step {
		return 0, 0
	}
	s.claimed = to
	return from, to
}

// drop gives the part behind the stream that has not been dropped yet, once it is a step.
func (t *streams) drop(r units.Run, behind, step int64) (from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[r.Slot]
	from, to = s.dropped, s.front-behind
	if s.start != r.Start || to-from < step {
		return 0, 0
	}
	s.dropped = to
	return from, to
}
