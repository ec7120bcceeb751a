package fs

import (
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

const (
	readAhead  = 32 << 20 // of a file, how far before a stream its source is read, but not twice as far as it has come
	streamStep = 4 << 20  // of a file, how far a stream goes before more of its source is read, or let go
)

// readAhead reads what row-contiguous recipes will need of the source when the stream gets there.
func (s *session) readAhead() {
	from, to := s.file.streams.claim(s.run, readAhead, streamStep)
	if to = min(to, s.file.Size()); from < to {
		s.file.ranges(from, to, func(f expr.File, off, n int64) bool { return s.read.ReadAhead(f, off, n, to) })
	}
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

// claim gives the part before the stream's front, up to ahead of it, that nobody has asked for yet, once that is a step.
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
