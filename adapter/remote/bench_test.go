package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
)

// BenchmarkFetch compares readers of blocks with plain parallel range requests of 8 MiB, through a
// link with 30 ms to the first byte and 67 MB/s for each connection. The two alternate.
func BenchmarkFetch(b *testing.B) {
	const n = 256 << 20
	s := serve(b, n, Options{}, nil)
	link := faultproxy.New(b, s.server.URL,
		faultproxy.Plan{Delay: 30 * time.Millisecond, PerConnection: 67e6})
	r := &racers{served: s, url: link.URL + "/file", client: newClient(Options{}),
		buffers: sync.Pool{New: func() any { return new([blockSize]byte) }}}
	defer r.client.close()
	s.fetcher = newFetcher(&servedBackend{r.url, r.client}, Options{})
	defer s.fetcher.close()
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprint("ahead ", ahead), func(b *testing.B) {
			var plain, fetched time.Duration
			b.SetBytes(n)
			for b.Loop() {
				plain += timed(func() { r.plain(b) })
				fetched += timed(func() { r.fetched(b, ahead) })
			}
			b.ReportMetric(n*float64(b.N)/1e6/plain.Seconds(), "plainMB/s")
			b.ReportMetric(n*float64(b.N)/1e6/fetched.Seconds(), "fetchMB/s")
			b.ReportMetric(plain.Seconds()/fetched.Seconds(), "ratio")
		})
	}
}

func timed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// racers reads a file in two ways, by 16 readers.
type racers struct {
	*served
	url     string
	client  *client
	buffers sync.Pool
}

// each calls f for all pieces of the file, in parallel.
func (r *racers) each(b *testing.B, f func(p []byte, off int64) error) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			buf := r.buffers.Get().(*[blockSize]byte)
			defer r.buffers.Put(buf)
			for {
				off := next.Add(blockSize) - blockSize
				if off >= r.object.size {
					return
				}
				if err := f(buf[:min(blockSize, r.object.size-off)], off); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func (r *racers) plain(b *testing.B) {
	r.each(b, func(p []byte, off int64) error {
		q, _ := http.NewRequest(http.MethodGet, r.url, nil)
		q.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
		a, err := r.client.do(q)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		_, err = io.ReadFull(a.Body, p)
		return err
	})
}

func (r *racers) fetched(b *testing.B, ahead bool) {
	tab := newTable(r.fetcher, r.object)
	defer tab.close()
	tab.cut(nil)
	r.each(b, func(p []byte, off int64) error {
		if ahead {
			tab.ahead(off+int64(len(p)), r.fetcher.distance())
		}
		_, err := tab.read(context.Background(), p, off)
		return err
	})
}

// BenchmarkMemory compares reads of blocks in memory with copying the same bytes.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{128 << 10, 1 << 20, 8 << 20} {
		s := serve(b, 64<<20, Options{Memory: 128 << 20}, nil)
		tab := newTable(s.fetcher, s.object)
		tab.cut(nil)
		s.check(b, tab, 0, 64<<20)
		p := make([]byte, n)
		b.Run(fmt.Sprint("read ", n>>10, " KiB"), func(b *testing.B) {
			b.SetBytes(int64(n))
			for i := 0; b.Loop(); i += n {
				_, _ = tab.read(context.Background(), p, int64(i%(64<<20)))
			}
		})
		b.Run(fmt.Sprint("copy ", n>>10, " KiB"), func(b *testing.B) {
			b.SetBytes(int64(n))
			for i := 0; b.Loop(); i += n {
				copy(p, s.data[i%(64<<20):])
			}
		})
	}
}
