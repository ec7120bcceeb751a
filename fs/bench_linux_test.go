package fs

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkMountedSequentialReading reads through a mount, cold for us, from a source in memory
// that answers each read after a delay: with 5 ms it should keep 0.7 of its speed.
func BenchmarkMountedSequentialReading(b *testing.B) {
	for _, view := range []string{"native", "hf"} {
		for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s/%v", view, delay), func(b *testing.B) {
				f, source := layerFS(b, deepSeek, Options{CacheSize: 256 << 20})
				if view == "hf" {
					f, source = rowsFS(b, 7168, 16384, Options{})
				}
				if delay > 0 {
					source.hook = func(int64, int) error { time.Sleep(delay); return nil }
				}
				_, root := mountFS(b, f, MountOptions{})
				path := filepath.Join(root, singleName)
				b.SetBytes(f.find(singleName).size())
				for b.Loop() {
					readCold(b, path)
				}
			})
		}
	}
}

// readCold drops the kernel's pages of a file and reads it.
func readCold(b *testing.B, path string) {
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{file},
		make([]byte, 1<<20)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadAt reads in process, 1 MiB at a time.
func BenchmarkReadAt(b *testing.B) {
	for _, view := range []string{"native", "hf"} {
		b.Run(view, func(b *testing.B) {
			f, _ := layerFS(b, deepSeek, Options{CacheSize: 1 << 30})
			if view == "hf" {
				f, _ = rowsFS(b, 7168, 16384, Options{})
			}
			r, err := f.ReaderAt(singleName)
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 1<<20)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			var off int64
			for b.Loop() {
				if off+int64(len(buf)) > r.Size() {
					off = 0
				}
				if _, err := r.ReadAt(buf, off); err != nil {
					b.Fatal(err)
				}
				off += int64(len(buf))
			}
		})
	}
}

// BenchmarkCacheUnderContention reads small ranges of experts at random, in process, on many
// goroutines: from units that are all there, and with room for half of them.
func BenchmarkCacheUnderContention(b *testing.B) {
	x := expertShape{experts: 16, hidden: 256, intermediate: 256}
	all := x.experts * 3 * x.hidden * x.intermediate
	for name, budget := range map[string]int64{"warm": 2 * all, "evicting": all / 2} {
		b.Run(name, func(b *testing.B) {
			f, _ := layerFS(b, x, Options{CacheSize: budget})
			r, err := f.ReaderAt(singleName)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.ReadAt(make([]byte, r.Size()), 0); err != nil && err != io.EOF {
				b.Fatal(err)
			}
			var seed atomic.Uint64
			b.SetBytes(4096)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(seed.Add(1), 0))
				buf := make([]byte, 4096)
				for pb.Next() {
					if _, err := r.ReadAt(buf, rng.Int64N(r.Size()-4096)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(f.Stats().Refetches)/float64(b.N), "refetches/op")
		})
	}
}
