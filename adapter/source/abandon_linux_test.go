package source_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Readers that leave at any moment, and those that stay, share the memory of errands. Each gets the
// bytes of its own range or an error, and a buffer is left alone after the read.
func TestReadersThatLeaveAtAnyMomentGetNoOtherBytes(t *testing.T) {
	f, want, path := large(t)
	source.OnServer(f)
	const readers, reads = 8, 20
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 11))
			p := make([]byte, 600_000)
			for range reads {
				if rng.IntN(4) == 0 {
					forget(t, path)
				}
				off := rng.IntN(len(want))
				q := p[:1+rng.IntN(min(len(p), len(want)-off))]
				patience := time.Duration(rng.IntN(3000)) * time.Microsecond
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				n, err := f.ReadAt(ctx, q, int64(off))
				cancel()
				switch {
				case err == nil && (n != len(q) || !bytes.Equal(q, want[off:off+n])):
					t.Errorf("[%d, %d): %d bytes, or others", off, off+len(q), n)
				case err != nil && !errors.Is(err, context.DeadlineExceeded):
					t.Error(err)
				}
				fill(p, 0xa5) // the race detector sees an errand that still writes
			}
		})
	}
	all.Wait()
}

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}
