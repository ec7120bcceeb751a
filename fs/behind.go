package fs

import "github.com/dequantfs/dequantfs/adapter/expr"

const dropBehind = 48 << 20 // of a file, how far behind a stream its source is let go

// adviser is a source file that passes advice on to the system.
type adviser interface {
	Advise(off, n int64, dontneed bool)
}

// dropBehind lets go of source bytes in the page cache that the stream has left behind.
func (s *session) dropBehind() {
	from, to := s.file.streams.drop(s.run, dropBehind, streamStep)
	s.file.ranges(from, to, dontNeed)
}

func dontNeed(f expr.File, off, n int64) bool {
	if a, ok := f.(adviser); ok {
		a.Advise(off, n, true)
	}
	return true
}

// drop gives the part behind the stream that nobody has let go of yet, once that is a step.
func (t *streams) drop(r run, behind, step int64) (from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[r.slot]
	from, to = s.dropped, s.front-behind
	if s.start != r.start || to-from < step {
		return 0, 0
	}
	s.dropped = to
	return from, to
}

// dropUnit lets go of the source of a filled unit. A panic here costs nobody anything: the unit is filled.
func (f *FS) dropUnit(key expr.UnitKey) {
	var ignored error // logged
	defer f.recover("letting go of a source", &ignored)
	if f.options.SourceCache == SourceDrop {
		dontNeed(key.File, key.Offset, key.Rows*max(key.Stride, key.Cols))
	}
}
