package fs

import "github.com/dequantfs/dequantfs/fs/units"

const dropBehind = 48 << 20 // of a file, how far behind a stream its source is let go

// dropBehind lets go of source bytes in the page cache that the stream has left behind.
func (s *session) dropBehind() {
	if s.fs.options.SourceCache != units.SourceDrop {
		return
	}
	from, to := s.file.streams.drop(s.run, dropBehind, streamStep)
	s.file.ranges(from, to, s.fs.units.Drop)
}

// drop gives the part behind the stream that nobody has let go of yet, once that is a step.
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
