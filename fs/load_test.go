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
	"github.com/dequantfs/dequantfs/fs/units"
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
		// direct in the first, in the second pass
		for mode, want := range map[units.SourceCache][2]bool{
			units.SourceAuto: {true, false},
			units.SourceKeep: {false, false},
			units.SourceDrop: {true, true},
		} {
			source := &twoWays{memory: memory{name: "source"}, t: t}
			f := open(t, source, Options{SourceCache: mode, CacheSize: smallBudget,
				tuning: units.Tuning{KeepSpent: 1}})
			var first []byte
			for pass := range 2 {
				source.direct.Store(0)
				source.buffered.Store(0)
				limit(f, func(l *units.Limits) { l.Units = 0 }) // forget all units
				limit(f, func(*units.Limits) {})
				got := readSteps(t, f, 256<<10)
				if pass == 1 && !bytes.Equal(got, first) {
					t.Errorf("%s, mode %d: the second pass differs", name, mode)
				}
				first = got
				wantIdle(t, f)
				direct, buffered := source.direct.Load(), source.buffered.Load()
				if want[pass] && direct < source.size*9/10 || !want[pass] &&
					direct > source.size/10 || direct+buffered < source.size*9/10 {
					t.Errorf("%s, mode %d, pass %d: %d bytes past the page cache and %d through "+
						"it, of %d", name, mode, pass, direct, buffered, source.size)
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
		kept := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: units.SourceKeep}), 1<<20)
		dropped := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: units.SourceDrop}),
			1<<20)
		if !bytes.Equal(kept, dropped) {
			t.Errorf("%s: they differ", name)
		}
	}
}

func TestASourceThatFailsPastThePageCacheIsReadThroughIt(t *testing.T) {
	for name, open := range viewsOf {
		want := readSteps(t, open(t, &twoWays{t: t}, Options{SourceCache: units.SourceKeep}), 1<<20)
		f := open(t, &twoWays{t: t, broken: errors.New("broken")},
			Options{SourceCache: units.SourceDrop})
		if !bytes.Equal(readSteps(t, f, 1<<20), want) {
			t.Errorf("%s: wrong bytes", name)
		}
	}
}
