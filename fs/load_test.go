package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// twoWays is a source that can be read past the page cache, and counts which way it was.
type twoWays struct {
	memory
	t                testing.TB
	direct, buffered atomic.Int64 // bytes
	broken           error
	cached           bool
}

func (w *twoWays) Cached(int64, int64) bool { return w.cached }

func (w *twoWays) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	w.buffered.Add(int64(len(p)))
	return w.memory.ReadAt(ctx, p, off)
}

func (w *twoWays) ReadDirect(p []byte, off int64) (int, error) {
	if (uintptr(unsafe.Pointer(&p[0]))|uintptr(len(p))|uintptr(off))%expr.DirectAlign != 0 {
		w.t.Errorf("%d bytes at %d into %p are not aligned", len(p), off, p)
	}
	if w.broken != nil {
		return 0, w.broken
	}
	n, err := int(min(int64(len(p)), w.size-off)), error(nil)
	if n < len(p) {
		err = io.EOF
	}
	w.direct.Add(int64(n))
	if _, err := w.memory.ReadAt(context.Background(), p[:n], off); err != nil {
		return 0, err
	}
	return n, err
}

// viewsOf are trees of one kind of recipe each over a source.
var viewsOf = map[string]func(t testing.TB, file *twoWays, o Options) *FS{
	"rows": func(t testing.TB, file *twoWays, o Options) *FS {
		file.size = codesSize(manyRows, manyCols)
		return codesFS(t, file, manyRows, manyCols, o)
	},
	"units": func(t testing.TB, file *twoWays, o Options) *FS {
		return transposedFS(t, file, expertShape{experts: 8, hidden: 2048, intermediate: 1024}, o)
	},
}

func TestTheSourceIsReadPastThePageCacheTheFirstTime(t *testing.T) {
	for name, open := range viewsOf {
		for mode, want := range map[SourceCache][2]bool{ // direct in the first, in the second pass
			SourceAuto: {true, false},
			SourceKeep: {false, false},
			SourceDrop: {true, true},
		} {
			source := &twoWays{memory: memory{name: "source"}, t: t}
			f := open(t, source, Options{SourceCache: mode, CacheSize: smallBudget})
			f.cache.keepSpent = 0
			var first []byte
			for pass := range 2 {
				source.direct.Store(0)
				source.buffered.Store(0)
				f.cache.mu.Lock()
				for f.cache.evictFrom(f.cache.spent, anyEntry) || f.cache.evictFrom(f.cache.idle, anyEntry) {
				}
				f.cache.mu.Unlock()
				got := readSteps(t, f, 256<<10)
				if pass == 1 && !bytes.Equal(got, first) {
					t.Errorf("%s, mode %d: the second pass differs", name, mode)
				}
				first = got
				wantIdle(t, f)
				direct, buffered := source.direct.Load(), source.buffered.Load()
				if want[pass] && direct < source.size*9/10 || !want[pass] && direct > source.size/10 || direct+buffered < source.size*9/10 {
					t.Errorf("%s, mode %d, pass %d: %d bytes past the page cache and %d through it, of %d", name, mode, pass, direct, buffered, source.size)
				}
			}
		}
	}
}

func TestNothingIsReadAheadOfWhatIsInThePageCache(t *testing.T) {
	source := &twoWays{t: t, cached: true}
	f := viewsOf["rows"](t, source, Options{})
	readOn(t, f, 0, 8<<20)
	if s := f.Stats(); s.ReadAhead != 0 || s.SourceBytes > 8<<20 {
		t.Errorf("%d bytes were read, %d are held", s.SourceBytes, s.ReadAhead)
	}
}

func TestBothWaysGiveTheSameBytes(t *testing.T) {
	for name, open := range viewsOf {
		kept := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: SourceKeep}), 1<<20)
		dropped := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: SourceDrop}), 1<<20)
		if !bytes.Equal(kept, dropped) {
			t.Errorf("%s: they differ", name)
		}
	}
}

func TestASourceThatFailsPastThePageCacheIsReadThroughIt(t *testing.T) {
	for name, open := range viewsOf {
		want := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: SourceKeep}), 1<<20)
		f := open(t, &twoWays{t: t, broken: errors.New("broken")}, Options{SourceCache: SourceDrop})
		if !bytes.Equal(readSteps(t, f, 1<<20), want) {
			t.Errorf("%s: wrong bytes", name)
		}
	}
}

func TestARangeIsReadAgainOnlyIfAllOfItWasLoaded(t *testing.T) {
	const size, step = 10 << 20, 300_000
	w := new(source)
	for off := int64(0); off < size/2; off += step {
		if w.again(size, off, min(step, size/2-off)) {
			t.Fatalf("[%d, …) was not loaded before", off)
		}
	}
	for _, c := range []struct {
		off, n int64
		want   bool
	}{
		{0, size / 2, true},
		{1, 1 << 20, true},
		{size/2 - 1<<20, 2 << 20, false}, // in part
		{size - 1<<20, 1 << 20, false},
		{size - 1<<20, 5 << 20, true}, // by now; beyond the end is nothing
		{5, 1000, false},              // too small to know
	} {
		if got := w.again(size, c.off, c.n); got != c.want {
			t.Errorf("[%d, %d): %v", c.off, c.off+c.n, got)
		}
	}
}
