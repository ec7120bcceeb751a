//go:build !purego

package fp8

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pin makes the set in use run alone, or lets the faster one transpose.
func pin(p bool) { pinned = p }

// A machine without AVX-512 has nothing to choose from.
func TestTranspositionUsesOneOfTheSetsOfThisMachine(t *testing.T) {
	for _, size := range []int{1, 2, 4, 8} {
		got := transposing(size)
		if got > best() || got != best() && (got != avx2 || best() != avx512 || size > 2) {
			t.Errorf("elements of %d bytes: %v, and the best set is %v", size, got, best())
		}
		for range 3 {
			if again := transposing(size); again != got {
				t.Errorf("elements of %d bytes: %v, then %v", size, got, again)
			}
		}
	}
}

func TestAPinnedSetTransposesItself(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		for _, size := range []int{1, 2, 4, 8} {
			if got := transposing(size); got != using {
				t.Errorf("elements of %d bytes: %v instead of %v", size, got, using)
			}
		}
	})
}

// The kernels are stand-ins, so this needs no AVX-512.
func TestTheFasterSetIsChosen(t *testing.T) {
	kernel := func(takes time.Duration) *tiler {
		run := func(_ *byte, _, _ int, _ *byte, _, _, _ int, _ *byte) { time.Sleep(takes) }
		return &tiler{rows: 64, cols: 64, plain: run, stream: run}
	}
	quick, slow := kernel(0), kernel(time.Microsecond)
	for want, other := range map[implementation]implementation{avx2: avx512, avx512: avx2} {
		for _, size := range []int{1, 2} {
			was := [2]*tiler{tilers[want][size], tilers[other][size]}
			tilers[want][size], tilers[other][size] = quick, slow
			got := fasterTiler(size)
			tilers[want][size], tilers[other][size] = was[0], was[1]
			if got != want {
				t.Errorf("elements of %d bytes: %v, but %v is faster", size, got, want)
			}
		}
	}
}

// Whatever is chosen, each choice gives the bytes of the oracle.
func TestEveryChoiceTransposesAlike(t *testing.T) {
	defer func(was [3]func() implementation) { faster = was }(faster)
	for i := range best() + 1 { // whichever there is to choose from
		t.Run(i.String(), func(t *testing.T) {
			choose := func() implementation { return i }
			faster = [...]func() implementation{1: choose, 2: choose}
			r := rand.New(rand.NewPCG(31, uint64(i)))
			for range 60 {
				for _, size := range []int{1, 2} {
					checkTranspose(t, r, r.IntN(300), r.IntN(300), size)
				}
			}
		})
	}
}
