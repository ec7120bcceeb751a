package source_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// large gives a file of some MiB, which does not end with a page, its bytes and its path.
func large(t *testing.T) (f source.Direct, want []byte, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), fileName)
	rng := rand.NewChaCha8([32]byte{1})
	want = make([]byte, 5<<20+1234)
	_, _ = rng.Read(want)
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	return opened(t, path).(source.Direct), want, path
}

// forget drops a file from the page cache.
func forget(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0,
		unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
}

// aligned is dirty memory that begins on a page, skip bytes before the slice.
func aligned(t *testing.T, skip, n int) []byte {
	t.Helper()
	m, err := unix.Mmap(-1, 0, skip+n, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for i := range m {
		m[i] = 0xA5
	}
	return m[skip:]
}

// checkDirect reads a range past the page cache and compares it.
func checkDirect(t *testing.T, f source.Direct, want, p []byte, off int64) {
	t.Helper()
	n, err := f.ReadDirect(p, off)
	rest := want[min(off, int64(len(want))):]
	if wantErr := len(p) > len(rest); wantErr && err != io.EOF || !wantErr && err != nil {
		t.Errorf("[%d, %d): %v", off, off+int64(len(p)), err)
	}
	if m := min(len(p), len(rest)); n != m || !bytes.Equal(p[:n], rest[:m]) {
		t.Errorf("[%d, %d): %d bytes, or others than the file's", off, off+int64(len(p)), n)
	}
}

func TestReadingPastThePageCacheGivesTheSameBytes(t *testing.T) {
	f, want, path := large(t)
	for _, cold := range []bool{true, false} {
		var wg sync.WaitGroup
		for g := range uint64(4) {
			buf := aligned(t, 0, 1<<20)
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(g, 3))
				for range 50 {
					if cold {
						forget(t, path)
					}
					off := rng.Int64N(int64(len(want))/source.DirectAlign+3) * source.DirectAlign
					checkDirect(t, f, want,
						buf[:(1+rng.IntN(len(buf)/source.DirectAlign))*source.DirectAlign], off)
				}
			})
		}
		wg.Wait()
	}
}

func TestAFileThatCannotBeReadThatWayIsReadAsUsual(t *testing.T) {
	f, want, path := large(t)
	forget(t, path)
	checkDirect(t, f, want, aligned(t, 1, 64<<10), 4096) // which disks refuse
	forget(t, path)
	checkDirect(t, f, want, aligned(t, 0, 64<<10), 4096)
}

// uncached drops a file from the page cache and gives a function that counts its pages there.
func uncached(t *testing.T, path string) (pages func() uint64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Skipf("this filesystem has no direct reads: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	pages = func() uint64 {
		var s unix.Cachestat_t
		if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &s, 0); err != nil {
			t.Skipf("this system does not tell what is in its page cache: %v", err)
		}
		return s.Cache
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if pages() == 0 {
		t.Skip("this filesystem has its pages elsewhere, as an overlay")
	}
	forget(t, path)
	if n := pages(); n > 0 {
		t.Skipf("this filesystem keeps its pages: %d of them", n)
	}
	return pages
}

func TestReadingPastThePageCacheLeavesItAlone(t *testing.T) {
	f, want, path := large(t)
	pages := uncached(t, path)
	if f.Cached(0, 1<<20) {
		t.Error("said to be in memory, but is not")
	}
	checkDirect(t, f, want, aligned(t, 0, 1<<20), 0)
	if got := pages(); got > 0 {
		t.Errorf("%d pages of the file are in memory", got)
	}
	if _, err := f.ReadAt(t.Context(), make([]byte, len(want)), 0); err != nil {
		t.Fatal(err)
	}
	all := pages()
	if !f.Cached(0, 1<<20) {
		t.Error("said not to be in memory, but is")
	}
	checkDirect(t, f, want, aligned(t, 0, 1<<20), 0)
	if got := pages(); all == 0 || got != all {
		t.Errorf("%d pages of the file were in memory, now %d", all, got)
	}
}

// TestTooManyOpenFilesDoNotEndDirectReads lets the first direct read find no descriptor. It reads
// as usual then, and the next one, for which there is a descriptor, past the page cache.
func TestTooManyOpenFilesDoNotEndDirectReads(t *testing.T) {
	f, want, path := large(t)
	pages := uncached(t, path)
	buf := aligned(t, 0, 1<<20)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	// Up to the first descriptor that is free.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE,
		&unix.Rlimit{Cur: uint64(free), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, err = unix.Dup(0)
	checkDirect(t, f, want, buf, 0)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != unix.EMFILE || pages() == 0 {
		t.Fatalf("there was a descriptor: %v, %d pages in memory", err, pages())
	}
	for pages() > 0 { // what the kernel reads ahead comes late
		forget(t, path)
	}
	checkDirect(t, f, want, buf, 0)
	if got := pages(); got > 0 {
		t.Errorf("%d pages of the file are in memory: direct reads are off", got)
	}
}

func TestReadsPastThePageCacheFailOnceTheFileHasChanged(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"rewritten": func(t *testing.T, path string) { restamped(t, path, func() { rewrite(t, path) }) },
		"truncated": func(t *testing.T, path string) {
			if err := os.Truncate(path, 100_000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, want, path := large(t)
			buf := aligned(t, 0, 64<<10)
			checkDirect(t, f, want, buf, 0)
			change(t, path)
			forget(t, path)
			for _, off := range []int64{0, 128 << 10} {
				if n, err := f.ReadDirect(buf, off); n != 0 || !errors.Is(err, source.ErrChanged) {
					t.Errorf("at %d: %d bytes, %v", off, n, err)
				}
			}
		})
	}
}

func TestAClosedFileIsNotReadPastThePageCache(t *testing.T) {
	f, want, path := large(t)
	forget(t, path)
	buf := aligned(t, 0, 64<<10)
	checkDirect(t, f, want, buf, 0)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadDirect(buf, 0); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
