package remote

import (
	"math/rand/v2"
	"testing"
)

// Readers of a checkpoint read a block in pieces, out of order, and some bytes more than once.
func TestABlockIsSpentOnceAllOfItWasRead(t *testing.T) {
	for _, n := range []int64{1, 2, 100, 127, 128, 129, 1000, 1 << 20, 8 << 20, 8<<20 - 1} {
		b := &block{n: n}
		step := max(n/16, 1)
		var begins []int64
		for at := int64(0); at < n; at += step {
			begins = append(begins, at)
		}
		rand.Shuffle(len(begins), func(i, j int) { begins[i], begins[j] = begins[j], begins[i] })
		for i, at := range begins {
			if b.spent() {
				t.Fatalf("%d bytes: spent after %d of %d reads", n, i, len(begins))
			}
			for range 2 {
				b.seen.mark(at, min(at+step, n), n)
			}
		}
		if !b.spent() {
			t.Errorf("%d bytes: not spent", n)
		}
	}
}

// A block whose end was read is still needed by readers of its beginning.
func TestABlockIsNotSpentByItsEnd(t *testing.T) {
	b := &block{n: 1 << 20}
	for range 5 {
		b.seen.mark(1<<19, 1<<20, b.n)
	}
	if b.spent() {
		t.Error("half of the block was not read")
	}
}
