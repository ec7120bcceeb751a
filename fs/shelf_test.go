package fs

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestKeysAreInNaturalOrder(t *testing.T) {
	want := []string{
		"lm_head.weight", "model.embed.weight", "model.layers.0.w1", "model.layers.0.w2",
		"model.layers.0.w10", "model.layers.2.x", "model.layers.10.w", "model.layers.a.w",
		"model.norm",
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		keys := slices.Clone(want)
		rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		f := &file{name: "f", ends: []int64{0}, segments: []*segment{{}}}
		for i, key := range keys {
			f.segments = append(f.segments, &segment{key: key})
			f.ends = append(f.ends, int64(100*(i+1)))
		}
		s := inKeys([]*file{f})
		var got []string
		for _, p := range s.parts {
			got = append(got, f.segments[f.segment(p.off)].key)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v", seed, got)
		}
		for off := range f.Size() {
			at, ok := s.place(f, off)
			if p, in := s.at(at); !ok || p.off+in != off {
				t.Fatalf("seed %d: byte %d is at %d, which is byte %d", seed, off, at, p.off+in)
			}
		}
	}
}

func TestFilesAreInTheOrderOfTheirNames(t *testing.T) {
	var files []*file
	for i, name := range []string{"c", "a", "b"} {
		files = append(files, &file{
			name: name, segments: []*segment{{}, {key: "x"}}, ends: []int64{10, int64(20 + i)},
		})
	}
	s := inFiles(files)
	if s.size != 63 || !slices.IsSortedFunc(s.parts, func(a, b shelfPart) int {
		return cmp.Compare(a.file.name, b.file.name)
	}) {
		t.Errorf("%d bytes", s.size)
	}
	for _, f := range files {
		for off := range f.Size() {
			if at, _ := s.place(f, off); !holds(s, at, f, off) {
				t.Errorf("%s: byte %d", f.name, off)
			}
		}
	}
}

func holds(s *shelf, at int64, f *file, off int64) bool {
	p, in := s.at(at)
	return p.file == f && p.off+in == off
}

// The set of pages is compared with a map.
func TestGivenPages(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n = 1000
	g, want := make(given, (n+63)/64), map[int64]bool{}
	for range 300 {
		from := rng.Int64N(n)
		to := from + rng.Int64N(n-from) + 1
		if rng.IntN(8) == 0 {
			g.set(from, min(from+20, to))
			for p := from; p < min(from+20, to); p++ {
				want[p] = true
			}
		}
		for _, in := range []bool{true, false} {
			p := from
			for p < to && want[p] != in {
				p++
			}
			if got := g.next(from, to, in); got != p {
				t.Fatalf("next(%d, %d, %v) = %d, want %d", from, to, in, got, p)
			}
		}
	}
}

func TestMarks(t *testing.T) {
	f := &file{ends: []int64{100<<20 + 5}}
	last := f.Size() / pageSize
	var got []int64
	for at := f.mark(0, last+1); at <= last; at = f.mark(at+1, last+1) {
		got = append(got, at*pageSize)
	}
	want := []int64{8 << 20, 24 << 20, 40 << 20, 56 << 20, 72 << 20, 88 << 20, last * pageSize}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
