package pagecache

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// cold writes a file and drops it from memory. The test is skipped where files live in memory.
func cold(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	block := make([]byte, mib)
	for at := int64(0); at < size; at += mib {
		if _, err := f.WriteAt(block[:min(mib, size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), drop(f)); err != nil {
		t.Fatal(err)
	}
	if n, err := Resident(f, Range{0, size}); err != nil || n > 0 {
		t.Skipf("%d bytes stay in memory, %v: is the folder in memory?", n, err)
	}
	return f
}

// drop drops a file from memory.
func drop(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// byMincore counts the pages of a range in memory, one mapping for each.
func byMincore(t *testing.T, f *os.File, r Range) (bytes int64) {
	t.Helper()
	page := os.Getpagesize()
	for at := r.Off; at < r.Off+r.Len; at += int64(page) {
		m, err := unix.Mmap(int(f.Fd()), at, page, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		var seen [1]byte
		if err := errors.Join(mincoreOf(m, seen[:]), unix.Munmap(m)); err != nil {
			t.Fatal(err)
		}
		bytes += int64(seen[0]&1) * int64(page)
	}
	return bytes
}

// byFincore counts the bytes of a file in memory with util-linux.
func byFincore(t *testing.T, f *os.File) int64 {
	t.Helper()
	out, err := exec.Command("fincore", "--bytes", "--noheadings", "--output", "RES",
		f.Name()).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("fincore is not installed")
		return -1
	}
	n, bad := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil || bad != nil {
		t.Fatalf("%v, %q", err, out)
	}
	return n
}

// TestResidentAgreesWithOthers reads pieces of a file, and compares with mincore and fincore. They
// are tried again, since the kernel may drop pages between two questions.
func TestResidentAgreesWithOthers(t *testing.T) {
	const size = 20*mib - 1000
	f := cold(t, size)
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	page := int64(os.Getpagesize())
	for range 30 {
		piece := make([]byte, 1+rng.IntN(300_000))
		if _, err := f.ReadAt(piece, rng.Int64N(size-300_000)); err != nil {
			t.Fatal(err)
		}
		r := Range{Off: rng.Int64N(size/page) * page}
		r.Len = min((1+rng.Int64N(size/page))*page, size-r.Off)
		agree(t, func() (got, want int64) { return whole(resident(t, f, r)), byMincore(t, f, r) })
	}
	all := Range{0, size}
	agree(t, func() (got, want int64) {
		if want = byFincore(t, f); want < 0 {
			want = byMincore(t, f, all)
		}
		return whole(resident(t, f, all)), want
	})
	if _, err := f.ReadAt(make([]byte, 10), size-10); err != nil { // the page that the end cuts
		t.Fatal(err)
	}
	last := Pages(size, Range{size - 10, 10})[0]
	agree(t, func() (got, want int64) { return resident(t, f, last), last.Len })
}

// whole rounds up to whole pages, as the others count.
func whole(n int64) int64 {
	page := int64(os.Getpagesize())
	return (n + page - 1) / page * page
}

func resident(t *testing.T, f *os.File, r Range) int64 {
	t.Helper()
	n, err := Resident(f, r)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func agree(t *testing.T, ask func() (got, want int64)) {
	t.Helper()
	var got, want int64
	for range 10 {
		if got, want = ask(); got == want {
			return
		}
	}
	t.Errorf("%d bytes in memory, want %d", got, want)
}

// TestKernelsWithoutCachestat asks an older kernel's way.
func TestKernelsWithoutCachestat(t *testing.T) {
	without.Store(true)
	defer without.Store(false)
	TestResidentAgreesWithOthers(t)
}

// TestWarmBringsWhatIsWanted brings parts of a file. No other page gets into memory.
func TestWarmBringsWhatIsWanted(t *testing.T) {
	const size = 40*mib + 5000
	f := cold(t, size)
	wanted := []Range{{3 * mib, 17*mib + 4096}, {30 * mib, 4096}, {40 * mib, 5000}}
	var total int64
	read := map[int]int64{}
	brought, err := Warm(t.Context(), []File{{f.Name(), wanted}}, Options{
		Progress: func(file int, _, n int64) { read[file] += n },
	})
	for _, r := range wanted {
		total += r.Len
		agree(t, func() (got, want int64) { return resident(t, f, r), r.Len })
	}
	if err != nil || brought != total || read[0] != total {
		t.Errorf("brought %d, reported %d of %d, %v", brought, read[0], total, err)
	}
	agree(t, func() (got, want int64) { return resident(t, f, Range{0, size}), total })
}

// TestWarmSkipsWhatIsThere: the second time nothing is brought.
func TestWarmSkipsWhatIsThere(t *testing.T) {
	f := cold(t, 10*mib)
	files := []File{{f.Name(), []Range{{0, 10 * mib}}}}
	for _, want := range []int64{10 * mib, 0} {
		if got, err := Warm(t.Context(), files, Options{}); got != want || err != nil {
			t.Errorf("brought %d, want %d, %v", got, want, err)
		}
	}
}

// TestWarmStopsWhenMemoryIsFull: it does not begin what does not fit, and names the limit.
func TestWarmStopsWhenMemoryIsFull(t *testing.T) {
	f := cold(t, 64*mib)
	const fits = 20 * mib
	brought, err := Warm(t.Context(), []File{{f.Name(), []Range{{0, 64 * mib}}}}, Options{
		Room: func(held, brought int64) (int64, string) { return fits - brought, "the test" },
	})
	var full *FullError
	if !errors.As(err, &full) || full.By != "the test" {
		t.Errorf("%v", err)
	}
	if brought > fits || brought < fits-window {
		t.Errorf("brought %d of the %d that fit", brought, fits)
	}
	agree(t, func() (got, want int64) { return resident(t, f, Range{0, 64 * mib}), brought })
}

// TestWarmStopsIfPagesAreDropped: another process drops the file as fast as it is brought.
func TestWarmStopsIfPagesAreDropped(t *testing.T) {
	f := cold(t, 64*mib)
	brought, err := Warm(t.Context(), []File{{f.Name(), []Range{{0, 64 * mib}}}}, Options{
		Jobs: 1, lookBehind: 16 * mib,
		Progress: func(int, int64, int64) {
			if err := drop(f); err != nil {
				t.Error(err)
			}
		},
	})
	if !errors.Is(err, ErrEvicted) || brought > 40*mib {
		t.Errorf("brought %d, %v", brought, err)
	}
}

// TestWarmEndsAsItsCallerSays: by ctx, by Look, and at a file that cannot be read.
func TestWarmEndsAsItsCallerSays(t *testing.T) {
	f := cold(t, 64*mib)
	files := []File{{f.Name(), []Range{{0, 64 * mib}}}}
	ctx, cancel := context.WithCancel(t.Context())
	brought, err := Warm(ctx, files, Options{Jobs: 1,
		Progress: func(int, int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) || brought > 2*window {
		t.Errorf("by ctx: brought %d, %v", brought, err)
	}
	err = (&warmer{Options: Options{Jobs: 1}}).run(ctx, files)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("by ctx, before the first window: %v", err)
	}
	if err := drop(f); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	_, err = Warm(t.Context(), files, Options{Look: func() error { return gone }})
	if !errors.Is(err, gone) {
		t.Errorf("by Look: %v", err)
	}
	if err := errors.Join(f.Truncate(20*mib), drop(f)); err != nil {
		t.Fatal(err)
	}
	if _, err = Warm(t.Context(), files, Options{}); err == nil ||
		!strings.Contains(err.Error(), f.Name()+": at byte ") {
		t.Errorf("beyond the end: %v", err)
	}
	files[0].Name += "-missing"
	if _, err = Warm(t.Context(), files, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestEstimateIsExactOrNear looks at all of a file, at an eighth, and at half of its pieces.
func TestEstimateIsExactOrNear(t *testing.T) {
	const size = 64*mib - 4000
	f := cold(t, size)
	file := File{f.Name(), []Range{{0, 24 * mib}}}
	if _, err := Warm(t.Context(), []File{file}, Options{}); err != nil {
		t.Fatal(err)
	}
	file.Ranges = []Range{{0, size}}
	for _, most := range []int64{size, size - 1, 8 * mib} {
		bytes, exact, err := estimate(t.Context(), []File{file}, most)
		near := bytes > 18*mib && bytes < 30*mib // one piece of 8 is 8 MiB of the file
		if err != nil || exact != (most == size) || !near || exact && bytes != 24*mib {
			t.Errorf("of %d bytes: %d, %v, %v", most, bytes, exact, err)
		}
	}
	for _, n := range []int64{1, 2, 7, 100} {
		var wanted int64
		for _, r := range sample([]File{file}, n)[0].Ranges {
			if r.Len <= 0 || r.Len > samplePart || r.Off%samplePart != 0 || r.Off+r.Len > size {
				t.Errorf("1 of %d: %v", n, r)
			}
			wanted += r.Len
		}
		if n == 1 && wanted != size || wanted > size/n+samplePart {
			t.Errorf("1 of %d: %d bytes of %d", n, wanted, size)
		}
	}
}
