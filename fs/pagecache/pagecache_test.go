package pagecache

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// TestPagesHoldTheParts compares the pages with a map of all pages, one by one.
func TestPagesHoldTheParts(t *testing.T) {
	page := int64(os.Getpagesize())
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		size := rng.Int64N(20 * page)
		var parts []Range
		want := map[int64]bool{}
		for range rng.IntN(5) {
			p := Range{Off: rng.Int64N(size + 1)}
			p.Len = rng.Int64N(size - p.Off + 1)
			parts = append(parts, p)
			for at := p.Off; at < p.Off+p.Len; at++ {
				want[at/page] = true
			}
		}
		got, end := map[int64]bool{}, int64(-1)
		for _, r := range Pages(size, parts...) {
			if r.Off%page != 0 || r.Len <= 0 || r.Off <= end {
				t.Fatalf("%v of %v: %v is empty, cuts a page, or touches the one before", parts,
					size, r)
			}
			if end = r.Off + r.Len; end > size || end%page != 0 && end != size {
				t.Fatalf("%v of %v: %v ends inside a page", parts, size, r)
			}
			for at := r.Off / page; at*page < end; at++ {
				got[at] = true
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%v of %d: pages %v, want %v", parts, size, got, want)
		}
		for at := range want {
			if !got[at] {
				t.Fatalf("%v of %d: page %d is missing", parts, size, at)
			}
		}
	}
}

func TestPagesOfAWholeFile(t *testing.T) {
	if got := Pages(10001, Range{0, 10001}); !slices.Equal(got, []Range{{0, 10001}}) {
		t.Error(got)
	}
}
