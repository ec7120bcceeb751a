package fs

import (
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

// comesWithin is how far from the beginning of a file the stream begins that is expected there.
const comesWithin = 16 << 20

// lead is how far the source of a stream was asked for over a network. It goes from the front of
// the stream through its file, and on through the files that follow in the directory.
type lead struct {
	asked   int64  // offset in the file up to which the source was asked for
	marks   []mark // what the stream has not passed yet, in the order of the file
	bytes   int64  // of the source, in marks
	read    int64  // bytes that were read before the stream came to this file
	walking bool
	last    expr.UnitKey // that was asked for
}

// mark is the bytes of the source that a part of a file needs. It ends at an offset of the file.
type mark struct{ end, bytes int64 }

// pass forgets what the stream has passed.
func (l *lead) pass(front int64) {
	n := 0
	for n < len(l.marks) && l.marks[n].end <= front {
		l.bytes -= l.marks[n].bytes
		n++
	}
	l.marks = l.marks[n:]
	l.asked = max(l.asked, front)
}

// expected makes a new stream that of a reader who has read the file before to its end.
func (s *stream) expected(l *lead) {
	s.lead = *l
	s.reads = max(s.reads, enough-1)
	s.bytes += l.read
}

// findNetwork returns a file of the source if its files come over a network. All are alike.
func (f *FS) findNetwork() (found expr.AheadFile) {
	look := func(file expr.File, _, _ int64) bool {
		found, _ = file.(expr.AheadFile)
		return false
	}
	for _, v := range f.views {
		for _, t := range v.Plan.Tensors {
			n := t.Node
			if !n.Ranges(0, n.Size(), look) ||
				!n.Units(0, n.Size(), func(u *expr.Unit) bool { return look(u.Key().File, 0, 0) }) {
				return found
			}
		}
	}
	return nil
}

// lead asks for the source that the stream will need next, in the order of the view. It goes as far
// ahead as is worth it for the network, but at most twice the bytes that the stream has read. When
// the stream has read most of its file, it goes on into the files that follow.
func (s *session) lead() {
	l, read, ok := s.streams.takeLead(s.run)
	if !ok {
		return
	}
	w := walk{session: s, file: s.file, left: min(s.fs.network.Distance(), 2*read) - l.bytes}
	w.ask(&l)
	whole := 2*read >= s.file.Size()
	s.streams.putLead(s.run, l)
	for whole && w.left > 0 && !w.full && w.file.next != nil {
		w.file = w.file.next
		w.follow(read)
	}
}

// takeLead returns the lead of a stream and how many bytes the stream has read. It fails if the
// stream is forgotten, or another read of it asks just now.
func (t *streams) takeLead(r units.Run) (l lead, read int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[r.Slot]
	if s.start != r.Start || s.lead.walking {
		return lead{}, 0, false
	}
	s.lead.pass(s.front)
	l = s.lead
	s.lead.walking = true
	return l, s.bytes, true
}

// putLead returns the lead of a stream, unless the stream is forgotten.
func (t *streams) putLead(r units.Run, l lead) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := &t.slots[r.Slot]; s.start == r.Start {
		l.walking = false
		s.lead = l
	}
}

// like returns the streams of the file to which reads like those of a session belong.
func (f *file) like(s *session) *streams {
	if s.modest() {
		return &f.ahead
	}
	return &f.streams
}

// walk goes through the parts of files that a stream will read.
type walk struct {
	*session
	file *file
	left int64 // bytes of the source that may still be asked for
	full bool  // there was no room for more
}

// follow asks for the beginning of a file that the stream has not come to.
func (w *walk) follow(read int64) {
	t := w.file.like(w.session)
	t.mu.Lock()
	l := t.coming
	if l == nil {
		l = new(lead)
	}
	t.coming = nil
	t.mu.Unlock()
	l.read = read
	w.left -= l.bytes
	w.ask(l)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.coming = l
}

// ask asks for the source of the file from l.asked on, in parts.
func (w *walk) ask(l *lead) {
	f := w.file
	for i := f.segment(l.asked); i < len(f.ends) && w.left > 0; i++ {
		for l.asked < f.ends[i] && w.left > 0 {
			end := min(f.ends[i], (l.asked>>regionShift+1)<<regionShift)
			before := w.left
			if i > 0 && !w.beenAt(l.asked, end-l.asked) && !w.part(l, i, end) {
				w.full = true
				return
			}
			l.asked = end
			if n := before - w.left; n > 0 {
				l.marks = append(l.marks, mark{end, n})
				l.bytes += n
			}
		}
	}
}

// How many reads ago another reader has been in a part that need not be asked for again. In the
// file of the stream, such a reader may be a part of the stream that the kernel has read out of
// order.
const (
	beenHere  = 256
	beenThere = 4096
)

// beenAt reports whether another reader was in a part of the file lately, or since the stream
// began. The kernel has its bytes, or that reader is ahead.
func (w *walk) beenAt(at, n int64) bool {
	if w.file != w.session.file {
		return w.file.visited(at, n, max(w.run.Clock-beenThere, 1))
	}
	if at>>regionShift <= (w.off+w.n-1)>>regionShift {
		return false
	}
	return w.file.visited(at, n, max(min(w.run.Start, w.run.Clock-beenHere), 1))
}

// visited reports whether a reader or a forerun was in [off, off+n) at or after clock.
func (f *file) visited(off, n, clock int64) bool {
	return f.streams.visited(off, n, clock) || f.ahead.visited(off, n, clock)
}

// part asks for the source of a segment from l.asked to end. It reports whether there was room.
func (w *walk) part(l *lead, i int, end int64) bool {
	node, from := w.file.segments[i].node, w.file.ends[i-1]
	off, n := l.asked-from, end-l.asked
	return node.Ranges(off, n, w.span) && node.Units(off, n, func(u *expr.Unit) bool {
		if u.Key() == l.last || u.Key().Kind != expr.Transposed || !w.read.Missing(u) {
			return true
		}
		if !u.Spans(w.span) {
			return false
		}
		l.last = u.Key()
		return true
	})
}

// span asks for a range of a source file. It reports whether there was room.
func (w *walk) span(f expr.File, off, n int64) bool {
	a, ok := f.(expr.AheadFile)
	if ok && !a.Ahead(off, n) {
		return false
	}
	w.left -= n
	return true
}
