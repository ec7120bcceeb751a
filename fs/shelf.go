package fs

import (
	"cmp"
	"slices"
	"strings"
)

// shelf is the bytes of a view in the order in which a loader reads them, as if they were one file.
type shelf struct {
	parts []shelfPart
	begin []int64 // of each part
	size  int64
	part  map[*file][]int // of each segment of a file; -1: none
	byKey bool
}

// shelfPart is a part of a file.
type shelfPart struct {
	file   *file
	off, n int64
}

func (s *shelf) add(p shelfPart) {
	s.parts = append(s.parts, p)
	s.begin = append(s.begin, s.size)
	s.size += p.n
}

// inFiles puts the files of a view one behind the other, in the order of their names.
func inFiles(files []*file) *shelf {
	s := &shelf{part: map[*file][]int{}}
	files = slices.SortedFunc(slices.Values(files), func(a, b *file) int {
		return cmp.Compare(a.name, b.name)
	})
	for i, f := range files {
		s.add(shelfPart{f, 0, f.Size()})
		s.part[f] = slices.Repeat([]int{i}, len(f.segments))
	}
	return s
}

// inKeys puts the tensors of a view one behind the other, in the natural order of their keys.
func inKeys(files []*file) *shelf {
	type tensor struct {
		file *file
		i    int
		key  []string
	}
	var all []tensor
	s := &shelf{part: map[*file][]int{}, byKey: true}
	for _, f := range files {
		s.part[f] = slices.Repeat([]int{-1}, len(f.segments))
		for i := 1; i < len(f.segments); i++ {
			all = append(all, tensor{f, i, strings.Split(f.segments[i].key, ".")})
		}
	}
	slices.SortStableFunc(all, func(a, b tensor) int {
		return slices.CompareFunc(a.key, b.key, naturally)
	})
	for k, t := range all {
		s.part[t.file][t.i] = k
		s.add(shelfPart{t.file, t.file.ends[t.i-1], t.file.ends[t.i] - t.file.ends[t.i-1]})
	}
	return s
}

// naturally compares two parts of keys. Numbers come first. Numbers, and those at the end of words,
// are compared by value.
func naturally(a, b string) int {
	x, y := isNumber(a), isNumber(b)
	switch {
	case x && y:
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	case x != y:
		return map[bool]int{true: -1, false: 1}[x]
	}
	stem, other := strings.TrimRight(a, digits), strings.TrimRight(b, digits)
	if stem == other && len(stem) < min(len(a), len(b)) {
		return naturally(a[len(stem):], b[len(stem):])
	}
	return cmp.Compare(a, b)
}

const digits = "0123456789"

func isNumber(s string) bool { return s != "" && strings.Trim(s, digits) == "" }

// at returns the part at an offset of the shelf, and the offset in the part.
func (s *shelf) at(off int64) (p shelfPart, in int64) {
	i, found := slices.BinarySearch(s.begin, off)
	if !found {
		i--
	}
	return s.parts[i], off - s.begin[i]
}

// place returns the offset on the shelf of a byte of a file. It fails for bytes that are not on the
// shelf.
func (s *shelf) place(f *file, off int64) (int64, bool) {
	k := s.part[f][f.segment(off)]
	if k < 0 {
		return 0, false
	}
	return s.begin[k] + off - s.parts[k].off, true
}
