package remote

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// Readers that give up at random moments, files that are closed and opened again, read-ahead, a
// disk cache and faults together leave right bytes, and the books in order.
func TestReadersGiveUpAndFilesCloseAtAnyMoment(t *testing.T) {
	goroutines(t)
	for _, seed := range size.Seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := serve(t, 12<<20, Options{}, nil)
			o := Options{Patience: 100 * time.Millisecond, Memory: 5 << 20, AtOnce: 6}
			_, _ = s.through(t, faultproxy.Plan{Seed: seed, Rate: 0.1}, o)
			s.fetcher.cache = &diskInMemory{blocks: map[int64][]byte{}}
			var group sync.WaitGroup
			for reader := range uint64(6) {
				group.Go(func() { s.hasten(t, rand.New(rand.NewPCG(seed, reader))) })
			}
			group.Wait()
			s.consistent(t)
		})
	}
}

// hasten opens files, reads them with little patience, and closes them.
func (s *served) hasten(t *testing.T, r *rand.Rand) {
	for range size.Count(5, 100) {
		tab := s.shard()
		var group sync.WaitGroup
		for range r.IntN(4) {
			off := r.Int64N(s.object.size)
			n := 1 + r.Int64N(min(s.object.size-off, 3<<20))
			patience := time.Duration(r.IntN(50)) * time.Millisecond
			group.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				p := make([]byte, n)
				_, err := tab.read(ctx, p, off)
				if err == nil && !bytes.Equal(p, s.data[off:off+n]) {
					t.Errorf("wrong bytes in [%d, %d)", off, off+n)
				}
			})
			tab.ahead(r.Int64N(s.object.size), r.Int64N(8<<20))
		}
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		tab.close()
		group.Wait()
	}
}
