package fs

import (
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

// Distances in a virtual file.
const (
	readAhead   = 32 << 20  // how far ahead of a stream its source is read, see claim
	streamStep  = 4 << 20   // how far a stream advances before more is read ahead, or dropped
	aheadWindow = 128 << 20 // how far to look for units that a stream will need
	dropBehind  = 48 << 20  // how far behind a stream its source is dropped from the page cache
)

// readAhead reads the part of the source that row-contiguous recipes will need when the stream gets
// there. It stops where a forerun has been if the stream is of a reader, and the other way round.
func (s *session) readAhead() {
	from, to := s.streams.claim(s.run, readAhead, streamStep)
	if to = s.others().until(from, min(to, s.file.Size()), s.lately()); from >= to {
		return
	}
	s.file.ranges(from, to, func(f expr.File, off, n int64) bool {
		return s.read.ReadAhead(f, off, n, to)
	})
}

// fetchAhead fetches the units that the stream will need next. It starts where the read ended.
//
// It stops where another reader has been since the stream began. Those units are in the kernel's
// cache, or that reader fetches them.
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
	return beyond && (s.streams.visited(at, n, s.run.Start) ||
		s.others().visited(at, n, s.lately()))
}

// lately is since when what others have read need not be read again.
func (s *session) lately() int64 { return max(s.run.Start-beenThere, 1) }

// others returns the streams of foreruns in the file, or those of readers if s is of a forerun.
func (s *session) others() *streams {
	if s.modest() {
		return &s.file.streams
	}
	return &s.file.ahead
}

// dropBehind drops source bytes behind the stream from the page cache.
func (s *session) dropBehind() {
	if s.fs.options.SourceCache != units.SourceDrop {
		return
	}
	from, to := s.streams.drop(s.run, dropBehind, streamStep)
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

// claim returns the part ahead of the stream's front that is not claimed yet, if it is at least a
// step long. It ends at most ahead bytes beyond the front, and at most twice the bytes that the
// stream has read.
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

// drop returns the part behind the stream that is not dropped yet, if it is at least a step long.
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
