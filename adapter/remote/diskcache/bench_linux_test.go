package diskcache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// typical is the size of most blocks.
const typical = 8 << 20

// processorTime reports the processor time of each operation, which other programs on the machine
// change less than its duration.
func processorTime(b *testing.B) {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	b.Cleanup(func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") })
}

// BenchmarkRead compares a block of the cache with the same bytes of a plain file. Both are in the
// page cache.
func BenchmarkRead(b *testing.B) {
	data := make([]byte, typical)
	rand.NewChaCha8([32]byte{}).Read(data)
	c, _ := openCache(b, b.TempDir(), 0)
	k := Key{"https://host/folder/", "model-00001-of-00163.safetensors", "etag"}
	c.Write(k, 0, data)
	name := filepath.Join(b.TempDir(), "plain")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		b.Fatal(err)
	}
	plain, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	for _, size := range []int{typical, 1 << 20, 128 << 10, 4 << 10} {
		p := make([]byte, size)
		at := int64(typical-size) / 2 / pieceSize * pieceSize
		name := map[int]string{typical: "8MiB", 1 << 20: "1MiB", 128 << 10: "128KiB",
			4 << 10: "4KiB"}[size]
		b.Run(name+"/cache", func(b *testing.B) {
			b.SetBytes(int64(size))
			processorTime(b)
			for b.Loop() {
				if !c.Read(k, 0, typical, p, at) {
					b.Fatal("missed")
				}
			}
		})
		b.Run(name+"/plain", func(b *testing.B) {
			b.SetBytes(int64(size))
			processorTime(b)
			for b.Loop() {
				if _, err := plain.ReadAt(p, at); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReadFromDisk compares blocks of the cache with plain files. They are not in the page
// cache.
func BenchmarkReadFromDisk(b *testing.B) {
	const blocks = 16
	dir := b.TempDir()
	c, _ := openCache(b, filepath.Join(dir, "cache"), 0)
	k := Key{"https://host/folder/", "model-00001-of-00163.safetensors", "etag"}
	data := make([]byte, typical)
	rand.NewChaCha8([32]byte{}).Read(data)
	plain := func(i int64) string { return filepath.Join(dir, blockName(i, 1)) }
	kept := func(i int64) string {
		return filepath.Join(c.folder.name, block{k, i, typical}.path())
	}
	for i := range int64(blocks) {
		c.Write(k, i, data)
		if err := os.WriteFile(plain(i), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, file func(i int64) string, read func(i int64) bool) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(blocks * typical)
			for range b.N {
				b.StopTimer()
				for i := range int64(blocks) {
					forget(b, file(i))
				}
				b.StartTimer()
				for i := range int64(blocks) {
					if !read(i) {
						b.Fatal("missed")
					}
				}
			}
		})
	}
	run("cache", kept, func(i int64) bool { return c.Read(k, i, typical, data, 0) })
	run("plain", plain, func(i int64) bool {
		f, err := os.Open(plain(i))
		if err != nil {
			return false
		}
		defer f.Close()
		n, _ := f.ReadAt(data, 0)
		return n == typical
	})
}

// forget takes a file out of the page cache.
func forget(b *testing.B, name string) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0,
		unix.FADV_DONTNEED)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWrite compares keeping a block with writing a plain file.
func BenchmarkWrite(b *testing.B) {
	data := make([]byte, typical)
	rand.NewChaCha8([32]byte{}).Read(data)
	dir := b.TempDir()
	b.Run("cache", func(b *testing.B) {
		c, _ := openCache(b, filepath.Join(dir, "cache"), 1<<30)
		k := Key{"https://host/folder/", "model-00001-of-00163.safetensors", "etag"}
		b.SetBytes(typical)
		processorTime(b)
		for i := int64(0); b.Loop(); i++ {
			c.Write(k, i%100*typical, data)
			c.folder.root.Remove(block{k, i % 100 * typical, typical}.path())
		}
	})
	b.Run("plain", func(b *testing.B) {
		name := filepath.Join(dir, "plain")
		b.SetBytes(typical)
		processorTime(b)
		for b.Loop() {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				b.Fatal(err)
			}
			os.Remove(name)
		}
	})
}

// BenchmarkList lists a cache of 690 GB in 163 objects: all of it, as the first time; again, when
// nothing has changed; and with the time of each block, as before blocks are removed.
func BenchmarkList(b *testing.B) {
	c, _ := openCache(b, b.TempDir(), 0)
	old := time.Now().Add(-time.Hour)
	for i := range 163 {
		dir := Key{"origin", fmt.Sprint(i), "version"}.dir()
		if err := c.folder.root.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		for off := range int64(503) {
			name := path.Join(dir, blockName(off*typical, typical))
			if err := c.folder.root.WriteFile(name, nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		for _, d := range []string{dir, path.Dir(dir)} {
			if err := c.folder.root.Chtimes(d, old, old); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, list := range map[string]func() error{
		"first":   func() error { c.index = index{}; return c.refresh(time.Now()) },
		"again":   func() error { return c.refresh(time.Now()) },
		"by time": func() error { _, err := c.folder.files(); return err },
	} {
		b.Run(name, func(b *testing.B) {
			processorTime(b)
			for b.Loop() {
				if err := list(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if want := 163 * 503 * onDisk(typical); c.index.total != want {
		b.Errorf("%d bytes, want %d", c.index.total, want)
	}
}
