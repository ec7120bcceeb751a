package fs

// front finds out whether a loader reads tensors in the order of their keys. In files, such a
// loader jumps about, and the kernel reads what is around each place. So most READs may be of other
// tensors. But the first tensor that nothing has touched, the front, moves on with at least every
// fifth byte. A loader in another order holds it up for long, and then moves it far at once.
type front struct {
	shelf   *shelf // in the order of keys
	touched []bool // by part
	next    int    // the first part that is not touched, from the first READ on
	begun   bool

	moved, bytes int64 // of the front and of READs, since they were last compared
	follows      bool
}

// frontStep is how many bytes of READs a front compares with its own way.
const frontStep = 64 << 20

// newFront makes a front for a view of which the kernel was given some pages.
func newFront(s *shelf, pagesOf map[*file]given) *front {
	t := &front{shelf: s, touched: make([]bool, len(s.parts))}
	for k, p := range s.parts {
		from, to := pages(p.off, p.n)
		if g := pagesOf[p.file]; g != nil && g.next(from, to, true) < to {
			t.mark(k)
		}
	}
	return t
}

// read records a READ. It returns the place of the front on the shelf, and whether the loader reads
// in the order of keys.
func (t *front) read(f *file, off, n int64) (at int64, follows bool) {
	t.moved += t.touch(f, off, n)
	if t.bytes += n; t.bytes >= frontStep {
		t.follows = t.moved >= t.bytes/5
		t.moved, t.bytes = 0, 0
	}
	if t.next == len(t.touched) {
		return t.shelf.size, false
	}
	return t.shelf.begin[t.next], t.follows
}

// touch records that the kernel was given a part of a file. It returns by how many bytes the front
// moved, at most by n, or by one tensor.
func (t *front) touch(f *file, off, n int64) (moved int64) {
	for i := max(f.segment(off), 1); i < len(f.ends) && f.ends[i-1] < off+n; i++ {
		t.mark(t.shelf.part[f][i])
	}
	first := t.next
	for t.begun && t.next < len(t.touched) && t.touched[t.next] {
		moved += t.shelf.parts[t.next].n
		t.next++
	}
	if first == t.next {
		return 0
	}
	return min(moved, max(n, t.shelf.parts[first].n))
}

// mark records that a part was touched. The front begins at the first one.
func (t *front) mark(k int) {
	t.touched[k] = true
	if !t.begun {
		t.next, t.begun = k, true
	}
}
