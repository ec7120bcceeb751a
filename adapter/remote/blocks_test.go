package remote

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

func TestBoundsOfBlocks(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	for _, c := range []struct {
		name   string
		size   int64
		begins []int64
		want   []int64
	}{
		{"empty", 0, nil, []int64{0}},
		{"one byte", 1, nil, []int64{0, 1}},
		{"equal parts", 20 * mib, nil, []int64{0, 20*mib/3 + 1, 40*mib/3 + 1, 20 * mib}},
		{"a header and a tensor", 9 * mib, []int64{mib}, []int64{0, mib, 9 * mib}},
		{"a scale joins its weight", 2 * mib, []int64{kib, mib, mib + kib},
			[]int64{0, kib, mib + kib, 2 * mib}},
		{"small tensors share a block", mib,
			[]int64{kib, 101 * kib, 201 * kib, 301 * kib, 401 * kib},
			[]int64{0, kib, 301 * kib, 401 * kib, mib}},
		{"order and repetition do not count", 3 * mib, []int64{2 * mib, mib, mib, 2 * mib},
			[]int64{0, mib, 2 * mib, 3 * mib}},
		{"places outside of the file do not count", 3 * mib, []int64{-5, 0, mib, 3 * mib, 4 * mib},
			[]int64{0, mib, 3 * mib}},
	} {
		if got := bounds(c.size, c.begins); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestBlocksCoverEveryFile(t *testing.T) {
	for _, seed := range size.Seeds(t) {
		r := rand.New(rand.NewPCG(seed, 0))
		for range 300 {
			n := 1 + r.Int64N(1<<uint(1+r.IntN(36)))
			var begins []int64
			for range r.IntN(100) {
				begins = append(begins, r.Int64N(n+10))
			}
			if err := covers(bounds(n, begins), n); err != nil {
				t.Fatalf("%d bytes, tensors at %v: %v", n, begins, err)
			}
		}
	}
}

// covers checks that blocks follow each other and have a fit size.
func covers(bounds []int64, n int64) error {
	if bounds[0] != 0 || bounds[len(bounds)-1] != n {
		return fmt.Errorf("from %d to %d", bounds[0], bounds[len(bounds)-1])
	}
	for i := range bounds[1:] {
		if k := bounds[i+1] - bounds[i]; k <= 0 || k > blockSize {
			return fmt.Errorf("block %d has %d bytes", i, k)
		}
	}
	return nil
}

// A rank reads its experts and nothing of the others.
func TestARankTransfersHardlyMoreThanItNeeds(t *testing.T) {
	const experts, weight, scale, header = 16, 1 << 20, 2 << 10, 5 << 10
	var begins []int64
	at := int64(header)
	for range experts * 3 {
		begins = append(begins, at, at+weight)
		at += weight + scale
	}
	s := serve(t, int(at), Options{}, nil)
	tab := newTable(s.fetcher, s.object)
	s.check(t, tab, 0, 8)
	s.check(t, tab, 8, header-8)
	tab.cut(begins)
	needs := int64(header)
	for e := range int64(experts) {
		for m := range int64(3) {
			off := header + (e*3+m)*(weight+scale)
			if e%4 != 1 {
				continue
			}
			tab.ahead(off, weight+scale)
			s.check(t, tab, off, weight)
			s.check(t, tab, off+weight, scale)
			needs += weight + scale
		}
	}
	if got := s.traffic().Bytes; float64(got) > 1.05*float64(needs) {
		t.Errorf("transferred %d bytes; needed %d", got, needs)
	}
}
