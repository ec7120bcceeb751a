package fs

const aheadWindow = 128 << 20 // of the file, how far to look for units that a stream will need

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
			if at>>regionShift > (s.off+s.n-1)>>regionShift && f.streams.visited(at, n, s.run.Start) {
				return
			}
			if i > 0 && !f.segments[i].node.Units(at-f.ends[i-1], n, fetch) {
				return
			}
			at += n
		}
	}
}
