package fs

import "slices"

// trails recognise loaders that read tensors in the order of their keys. In files, such a loader
// jumps about, and the kernel reads what is around each place. So the READs alone show no order.
type trails struct {
	list []*trail // the one that was read last is at the end
	far  int64    // the distance of parts that the kernel does not read together
}

// trail is of one such loader. It is on the shelf of keys.
type trail struct {
	last  int // the furthest part that was read
	jumps int // to a next part that is elsewhere in the files
}

const (
	maxTrails   = 16
	trailStep   = 4 // how many parts further on the next part of a trail may be
	enoughJumps = 3
)

// follow adds a READ to the trails. jumped reports whether the READ is not of a long stream in the
// order of files. It returns how far on the shelf a loader has come that reads in the order of
// keys, if the READ is one of its.
func (t *trails) follow(s *shelf, f *file, off, n int64, jumped bool) (at int64, ok bool) {
	for i := max(f.segment(off), 1); i < len(f.ends) && f.ends[i-1] < off+n; i++ {
		k := s.part[f][i]
		x := t.of(k)
		if k > x.last {
			if jumped && s.apart(x.last, k, t.far) {
				x.jumps++
			}
			x.last = k
		}
		if x.jumps >= enoughJumps {
			at, ok = s.begin[x.last]+s.parts[x.last].n, true
		}
	}
	return at, ok
}

// of returns the trail of a part. It moves to the end of the list.
func (t *trails) of(k int) *trail {
	x := &trail{last: k}
	i := slices.IndexFunc(t.list, func(x *trail) bool {
		return k > x.last-2*trailStep && k <= x.last+trailStep
	})
	switch {
	case i >= 0:
		x = t.list[i]
		t.list = slices.Delete(t.list, i, i+1)
	case len(t.list) >= maxTrails:
		t.list = slices.Delete(t.list, 0, 1)
	}
	t.list = append(t.list, x)
	return x
}

// apart reports whether two parts are so far from each other that the kernel does not read them
// together.
func (s *shelf) apart(i, k int, far int64) bool {
	a, b := s.parts[i], s.parts[k]
	return a.file != b.file || max(a.off-b.off-b.n, b.off-a.off-a.n) > far
}
