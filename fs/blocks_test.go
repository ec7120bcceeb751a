package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/units"
)

// codesFS is a tree with one matrix of codes, which is shown dequantized.
func codesFS(t testing.TB, file expr.File, rows, cols int64, o Options) *FS {
	t.Helper()
	w := &expr.Source{Key: "w", File: file, DType: safetensors.F8E4M3, Shape: []int64{rows, cols}}
	scale := &expr.Source{Key: "s", File: file, Offset: rows * cols, DType: safetensors.F32,
		Shape: []int64{(rows + 127) / 128, (cols + 127) / 128}}
	node, err := expr.Dequantize(w, scale,
		expr.DequantizeOptions{Block: [2]int64{128, 128}, Out: safetensors.BF16})
	if err != nil {
		t.Fatal(err)
	}
	return treeOf(t, o, adapter.Tensor{Name: "w", Node: node, Group: "g"})
}

// codesSize is how long the source of codesFS is.
func codesSize(rows, cols int64) int64 { return rows*cols + 4*((rows+127)/128)*((cols+127)/128) }

// rowsFS is a tree with one row-contiguous tensor dequantized from rows × cols codes.
func rowsFS(t testing.TB, rows, cols int64, o Options) (*FS, *memory) {
	t.Helper()
	source := &memory{name: "source", size: codesSize(rows, cols)}
	return codesFS(t, source, rows, cols, o), source
}

const manyRows, manyCols = 5000, 7000 // rows that no block ends with

// readSteps reads a file in steps of n bytes.
func readSteps(t *testing.T, f *FS, n int64) []byte {
	t.Helper()
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, r.Size())
	for off := int64(0); off < r.Size(); off += n {
		if _, err := r.ReadAt(all[off:min(off+n, r.Size())], off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	return all
}

func TestWhatIsReadAheadIsReadOnceAndIsTheSource(t *testing.T) {
	size := codesSize(manyRows, manyCols)
	without := codesFS(t, &memory{name: "source", size: size}, manyRows, manyCols,
		Options{CacheSize: -1})
	want := readSteps(t, without, 1<<20)
	for _, step := range []int64{100_000, 1 << 20, 3_333_333, 8 << 20} {
		f := codesFS(t, &memory{name: "source", size: size}, manyRows, manyCols, Options{})
		if !bytes.Equal(readSteps(t, f, step), want) {
			t.Errorf("steps of %d: wrong bytes", step)
		}
		eventually(t, "all that was read ahead was used", func() bool {
			return f.Stats().ReadAhead == 0
		})
		if s := f.Stats(); s.SourceBytes > size*101/100 || s.Unused != 0 {
			t.Errorf("steps of %d: read %d bytes of a source of %d, %d for nothing", step,
				s.SourceBytes, size, s.Unused)
		}
	}
}

// Blocks as small as can be, so that everything has a border in it.
func TestBlocksOfAnySizeGiveTheSameBytes(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	for _, size := range []int64{1, 100, 4099, 70_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			uncached := openViews(t, dir, Options{CacheSize: -1}, layout("", "hf", 0))
			tuning := units.Tuning{Block: size, MinBlock: 1}
			f := openViews(t, dir, Options{Workers: 3, tuning: tuning}, layout("", "hf", 0))
			for _, name := range shardsOf(t, f, ".") {
				want := readTree(t, uncached, name)
				file := f.find(name).content.(*file)
				var wg sync.WaitGroup
				for i := range uint64(4) { // streams, and reads that jump about between them
					rng := rand.New(rand.NewPCG(i, 9))
					wg.Go(func() {
						for off := int64(0); off < file.Size(); {
							n := 1 + rng.IntN(40_000)
							if err := checkRange(context.Background(), file, want, off,
								n); err != nil {
								t.Error(err)
								return
							}
							off += int64(n)
							at, n := someRange(rng, file)
							if err := checkRange(context.Background(), file, want, max(at, 0),
								n); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

// ahead tells reads ahead from those of the reader by their size: the reader's are small.
func isAhead(n int) bool { return n >= 64<<10 }

func TestReadingAheadThatFailsHarmsNobody(t *testing.T) {
	size := codesSize(manyRows, manyCols)
	want := readSteps(t, codesFS(t, &memory{name: "source", size: size}, manyRows, manyCols,
		Options{CacheSize: -1}), 1<<20)
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("broken") },
		"panic": func() error { panic("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			var failed atomic.Int64
			log := &logTo{}
			source := &memory{name: "source", size: size, hook: func(_ int64, n int) error {
				if !isAhead(n) {
					return nil
				}
				failed.Add(1)
				return fail()
			}}
			f := codesFS(t, source, manyRows, manyCols,
				Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
			if !bytes.Equal(readSteps(t, f, 64<<10), want) {
				t.Error("wrong bytes")
			}
			eventually(t, "nothing is held", func() bool { return f.Stats().ReadAhead == 0 })
			if failed.Load() == 0 {
				t.Error("nothing was read ahead")
			}
			if name == "panic" && !strings.Contains(log.String(), "reading ahead of source") {
				t.Errorf("the log is silent: %s", log)
			}
		})
	}
}

func TestAReaderOfAStalledBlockCanGiveUp(t *testing.T) {
	size := codesSize(manyRows, manyCols)
	hold := make(chan struct{})
	source := &memory{name: "source", size: size, hook: func(_ int64, n int) error {
		if isAhead(n) {
			<-hold
		}
		return nil
	}}
	f := codesFS(t, source, manyRows, manyCols, Options{})
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	ctx, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan error)
	go func() {
		for off := int64(0); ; off += int64(len(buf)) {
			if _, err := r.ReadAtContext(ctx, buf, off); err != nil {
				gaveUp <- err
				return
			}
		}
	}()
	eventually(t, "it waits", func() bool {
		return f.Stats().Active == 1 && f.Stats().ReadAhead > 0
	})
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	wantIdle(t, f)
	if _, err := r.ReadAt(buf, r.Size()-int64(len(buf))); err != nil && err != io.EOF {
		t.Errorf("far from there: %v", err)
	}
	close(hold)
	if n := len(readSteps(t, f, 1<<20)); int64(n) != r.Size() {
		t.Errorf("%d bytes", n)
	}
}

func TestStreamsThatEndMakeRoomForOthers(t *testing.T) {
	size := codesSize(manyRows, manyCols)
	f := codesFS(t, &memory{name: "source", size: size}, manyRows, manyCols, Options{})
	limit(f, func(l *units.Limits) { l.Blocks = 2 })
	begin := func(off int64) { readOn(t, f, off, 12<<20) }
	begin(4096)
	held := f.Stats().ReadAhead
	if held == 0 || held > 2*units.BufferSize {
		t.Fatalf("%d bytes are held", held)
	}
	begin(30 << 20)
	if got := f.Stats(); got.ReadAhead > 2*units.BufferSize || got.Unused != 0 {
		t.Errorf("%d bytes are held, %d were thrown away too early", got.ReadAhead, got.Unused)
	}
	for range 8192 { // much is read elsewhere
		f.units.Tick()
	}
	begin(50 << 20)
	if got := f.Stats(); got.ReadAhead > 2*units.BufferSize || got.Unused == 0 {
		t.Errorf("%d bytes are held, %d were thrown away", got.ReadAhead, got.Unused)
	}
}

// rewritten is a source that notices that it was changed.
type rewritten struct {
	memory
	changed atomic.Bool
	reading atomic.Int64
}

func (r *rewritten) Check() error {
	if r.changed.Load() {
		return adapter.ErrChanged
	}
	return nil
}

func (r *rewritten) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	r.reading.Add(1)
	defer r.reading.Add(-1)
	n, _ := r.memory.ReadAt(ctx, p, off)
	return n, r.Check()
}

func TestBlocksOfASourceThatHasChangedAreNotLent(t *testing.T) {
	source := &rewritten{memory: memory{name: "source", size: codesSize(manyRows, manyCols)}}
	f := codesFS(t, source, manyRows, manyCols, Options{})
	r := readOn(t, f, 0, 8<<20)
	eventually(t, "all of it was read", func() bool { return source.reading.Load() == 0 })
	if f.Stats().ReadAhead == 0 {
		t.Fatal("nothing was read ahead")
	}
	source.changed.Store(true)
	if n, err := r.ReadAt(make([]byte, 64<<10), 8<<20); n != 0 ||
		!errors.Is(err, adapter.ErrChanged) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// readOn reads n bytes from off on, 1 MiB at a time.
func readOn(t *testing.T, f *FS, off, n int64) ReaderAtContext {
	t.Helper()
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for end := off + n; off < end; off += int64(len(buf)) {
		if _, err := r.ReadAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// limit changes the limits of the cache.
func limit(f *FS, change func(*units.Limits)) {
	l := f.limits(f.shares, f.needs())
	change(&l)
	f.units.SetLimits(l)
}
