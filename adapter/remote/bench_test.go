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
	const n, readers = 256 << 20, 16
	s := serve(b, n, Options{}, nil)
	link := faultproxy.New(b, s.server.URL,
		faultproxy.Plan{Delay: 30 * time.Millisecond, PerConnection: 67e6})
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprint("ahead ", ahead), func(b *testing.B) {
			var plain, fetched time.Duration
			b.SetBytes(n)
			for b.Loop() {
				plain += timed(func() { s.plain(b, link.URL, readers) })
				fetched += timed(func() { s.fetched(b, link.URL, readers, ahead) })
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

// each calls f for all pieces of a file, in parallel.
func each(n, piece int64, readers int, f func(off, n int64)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for off := next.Add(piece) - piece; off < n; off = next.Add(piece) - piece {
				f(off, min(piece, n-off))
			}
		})
	}
	group.Wait()
}

func (s *served) plain(b *testing.B, url string, readers int) {
	c := newClient(Options{})
	defer c.close()
	buffers := sync.Pool{New: func() any { return new([blockSize]byte) }}
	each(s.object.size, blockSize, readers, func(off, n int64) {
		r, _ := http.NewRequest(http.MethodGet, url+"/file", nil)
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
		a, err := c.do(r)
		if err != nil {
			b.Error(err)
			return
		}
		defer a.Body.Close()
		buf := buffers.Get().(*[blockSize]byte)
		defer buffers.Put(buf)
		if _, err := io.ReadFull(a.Body, buf[:n]); err != nil {
			b.Error(err)
		}
	})
}

func (s *served) fetched(b *testing.B, url string, readers int, ahead bool) {
	c := newClient(Options{})
	defer c.close()
	f := newFetcher(&servedBackend{url + "/file", c}, Options{})
	defer f.close()
	tab := newTable(f, s.object)
	tab.cut([]int64{1000})
	buffers := sync.Pool{New: func() any { return new([blockSize]byte) }}
	each(s.object.size, blockSize, readers, func(off, n int64) {
		buf := buffers.Get().(*[blockSize]byte)
		defer buffers.Put(buf)
		if ahead {
			tab.ahead(off+n, f.distance())
		}
		if _, err := tab.read(context.Background(), buf[:n], off); err != nil {
			b.Error(err)
		}
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
