package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/units"
)

// memory is a source file whose bytes are a function of their place, which costs no memory.
type memory struct {
	steady.File
	name string
	size int64
	hook func(off int64, n int) error // before each read
}

// pattern is repeated; its length is odd, so that rows differ.
var pattern = func() []byte {
	p := make([]byte, 1<<16+1)
	for i := range p {
		p[i] = byte(i*7) & 0x77 // no NaN
	}
	return p
}()

func (m *memory) Name() string { return m.name }
func (m *memory) Size() int64  { return m.size }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if m.hook != nil {
		if err := m.hook(off, len(p)); err != nil {
			return 0, err
		}
	}
	for n := 0; n < len(p); {
		n += copy(p[n:], pattern[(off+int64(n))%int64(len(pattern)):])
	}
	return len(p), nil
}

// expertShape is the size of a made-up layer of experts.
type expertShape struct{ experts, hidden, intermediate int64 }

// layer makes the grouped gate and up projections of a layer, or with down its down projections,
// from FP8 experts.
func (x expertShape) layer(t testing.TB, file *memory) (gateUp, down adapter.Tensor) {
	t.Helper()
	return x.layerOf(t, file, &file.size)
}

// layerOf does that over any file, and tells what its size has to be.
func (x expertShape) layerOf(t testing.TB, file expr.File,
	size *int64) (gateUp, down adapter.Tensor) {
	t.Helper()
	var offset int64
	source := func(d safetensors.DType, shape ...int64) *expr.Source {
		n, err := safetensors.Size(d, shape)
		if err != nil {
			t.Fatal(err)
		}
		s := &expr.Source{Key: fmt.Sprint(offset), File: file, Offset: offset, DType: d,
			Shape: shape}
		offset += n
		*size = offset
		return s
	}
	must := func(n expr.Node, err error) expr.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	matrix := func(rows, cols int64) expr.Node {
		w := source(safetensors.F8E4M3, rows, cols)
		s := source(safetensors.F32, (rows+127)/128, (cols+127)/128)
		o := expr.DequantizeOptions{Block: [2]int64{128, 128}, Out: safetensors.BF16}
		return must(expr.Transpose(must(expr.Dequantize(w, s, o))))
	}
	var merged, downs []expr.Node
	for range x.experts {
		merged = append(merged,
			must(expr.Concat(1, matrix(x.intermediate, x.hidden),
				matrix(x.intermediate, x.hidden))))
		downs = append(downs, matrix(x.hidden, x.intermediate))
	}
	return adapter.Tensor{Name: "gate_up", Node: must(expr.Stack(merged...)), Group: "layer"},
		adapter.Tensor{Name: "down", Node: must(expr.Stack(downs...)), Group: "layer"}
}

// layerFS is a tree with one such layer in model.safetensors.
func layerFS(t testing.TB, x expertShape, o Options) (*FS, *memory) {
	t.Helper()
	file := &memory{name: "source"}
	gateUp, down := x.layer(t, file)
	return treeOf(t, o, gateUp, down), file
}

// transposedFS is layerFS over a source of another kind.
func transposedFS(t testing.TB, file *twoWays, x expertShape, o Options) *FS {
	t.Helper()
	gateUp, down := x.layerOf(t, file, &file.size)
	return treeOf(t, o, gateUp, down)
}

// treeOf is a tree with a view of these tensors in its root.
func treeOf(t testing.TB, o Options, tensors ...adapter.Tensor) *FS {
	t.Helper()
	_, bench := t.(*testing.B)
	o.tuning.Check = !bench
	f, err := New(nil, []View{{Plan: &adapter.Plan{Tensors: tensors}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// deepSeek are experts of DeepSeek-V3's size: a unit has 14.7 MB.
var deepSeek = expertShape{experts: 3, hidden: 7168, intermediate: 2048}

const smallBudget = 64 << 20

// readShard reads the only shard of a tree from its beginning to its end.
func readShard(t *testing.T, f *FS) {
	t.Helper()
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, r.Size())); err != nil {
		t.Fatal(err)
	}
}

func TestSequentialReadingReadsTheSourceOnce(t *testing.T) {
	f, source := layerFS(t, deepSeek, Options{CacheSize: smallBudget})
	readShard(t, f)
	wantOnce(t, f, source)
	if f.Stats().Prefetches == 0 {
		t.Error("nothing was fetched ahead")
	}
}

// wantOnce checks that at most 1.05 times the source was read.
func wantOnce(t *testing.T, f *FS, source *memory) {
	t.Helper()
	wantIdle(t, f)
	s := f.Stats()
	t.Logf("served %d, source %d, read %d in %d preads; %d fills, %d prefetched, %d again, %d "+
		"evictions",
		s.Bytes, source.size, s.SourceBytes, s.Preads, s.Fills, s.Prefetches, s.Refetches,
		s.Evictions)
	if s.SourceBytes*100 > source.size*105 {
		t.Errorf("read %d bytes of a source of %d", s.SourceBytes, source.size)
	}
	if s.TooSmall {
		t.Error("the budget is said to be too small")
	}
}

func TestMemoryOfUnitsIsUsedAgainAlthoughThereIsRoom(t *testing.T) {
	x := expertShape{experts: 64, hidden: 2048, intermediate: 1024}
	const keep, ahead, behind = 16 << 20, 32 << 20, 32 << 20
	f, source := layerFS(t, x, Options{CacheSize: 1 << 30, tuning: units.Tuning{KeepSpent: keep}})
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	most := int64(0)
	buf := make([]byte, 1<<20)
	for off := int64(0); off < r.Size(); off += int64(len(buf)) {
		if _, err := r.ReadAt(buf, off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		most = max(most, f.Stats().CacheUsed)
	}
	wantOnce(t, f, source)
	// Units that are kept, units that are fetched ahead, and units not far enough behind the
	// stream: half of its bytes.
	if limit := keep + ahead + behind/2 + 4*x.hidden*x.intermediate; most > limit {
		t.Errorf("units took up to %d bytes, more than %d", most, limit)
	}
	before := f.Stats().Fills
	if _, err := r.ReadAt(buf, r.Size()-int64(len(buf))); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if f.Stats().Fills != before {
		t.Error("the last unit was not kept")
	}
}

// readExperts reads each expert of gate_up in a goroutine of its own.
func readExperts(t *testing.T, f *FS, x expertShape, size int64) {
	t.Helper()
	v := f.find(singleName).content.(*file)
	at := v.ends[1] // down stands before gate_up
	if v.segments[1].key != "down" {
		t.Fatal("unexpected order")
	}
	each := x.hidden * x.intermediate * 4
	var wg sync.WaitGroup
	for e := range x.experts {
		wg.Go(func() {
			buf := make([]byte, size)
			for off := int64(0); off < each; off += size {
				if _, err := v.ReadAt(buf, at+e*each+off); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestManyStreamsShareASmallBudget(t *testing.T) {
	x := expertShape{experts: 64, hidden: 512, intermediate: 512}
	unit := x.hidden * x.intermediate
	// nothing depends on how busy the machine is
	long := units.Tuning{Grace: time.Hour, Patience: time.Hour}
	f, source := layerFS(t, x, Options{CacheSize: 16 * unit, tuning: long})
	readExperts(t, f, x, 64<<10)
	wantIdle(t, f)
	s := f.Stats()
	read := source.size / 3 * 2
	t.Logf("%.2f×, %d fills, %d again", float64(s.SourceBytes)/float64(read), s.Fills, s.Refetches)
	if s.SourceBytes > 4*read {
		t.Errorf("read %d bytes of a source of %d", s.SourceBytes, read)
	}
	if !s.TooSmall {
		t.Error("the budget is not said to be too small")
	}
}

// Source bytes of random reads are reported. Bounds are only for numbers that do not depend on
// luck: rows are read as needed, and units once if there is room for all.
func TestWhatRandomReadsReadOfTheSource(t *testing.T) {
	x := expertShape{experts: 8, hidden: 2048, intermediate: 1024}
	rows, experts := codesSize(manyRows, manyCols), x.experts*3*x.hidden*x.intermediate
	for _, c := range []struct {
		name   string
		budget int64
		open   func(o Options) (*FS, int64) // and the size of the source
		most   float64                      // source bytes for each byte given; 0: not bounded
	}{
		{"hf", 0, func(o Options) (*FS, int64) {
			return codesFS(t, &memory{name: "source", size: rows}, manyRows, manyCols, o), rows
		}, 0.505},
		{"native, room for all", 2 * experts, func(o Options) (*FS, int64) {
			f, source := layerFS(t, x, o)
			return f, source.size
		}, 0},
		{"native, room for a third", experts / 3, func(o Options) (*FS, int64) {
			f, source := layerFS(t, x, o)
			return f, source.size
		}, 0},
	} {
		for _, n := range []int64{4 << 10, 1 << 20} {
			f, size := c.open(Options{CacheSize: c.budget})
			r, err := f.ReaderAt(singleName)
			if err != nil {
				t.Fatal(err)
			}
			buf, rng := make([]byte, n), rand.New(rand.NewPCG(1, uint64(n)))
			for range max(6<<20/n, 24) {
				if _, err := r.ReadAt(buf, rng.Int64N(r.Size()-n)); err != nil {
					t.Fatal(err)
				}
			}
			wantIdle(t, f)
			s := f.Stats()
			per := float64(s.SourceBytes) / float64(s.Bytes)
			t.Logf("%s, random reads of %d KiB: %.3f bytes of the source for each, %d preads, "+
				"%d fills, %d again", c.name, n>>10, per, s.Preads, s.Fills, s.Refetches)
			if c.most > 0 && per > c.most {
				t.Errorf("%s, reads of %d: %.3f bytes of the source for each byte", c.name, n, per)
			}
			if c.budget > experts && s.SourceBytes > size {
				t.Errorf("%s, reads of %d: read %d bytes of a source of %d", c.name, n,
					s.SourceBytes, size)
			}
		}
	}
}

func TestRowContiguousReadsTouchNoCache(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("", "hf", 0))
	for _, name := range shardsOf(t, f, ".") {
		readTree(t, f, name)
	}
	if s := f.Stats(); s.Fills != 0 || s.Units != 0 || s.CacheUsed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	x := expertShape{experts: 2, hidden: 256, intermediate: 256}
	f, _ := layerFS(t, x, Options{CacheSize: 1 << 30})
	r, err := f.ReaderAt(singleName)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	read := func() {
		if _, err := r.ReadAt(buf, 8192); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		read()
	}
	// The pools may lose something to a collection at any time, so one run without allocations is
	// proof enough.
	best := 1e9
	for range 20 {
		best = min(best, testing.AllocsPerRun(50, read))
	}
	if best >= 1 && !raceEnabled {
		t.Errorf("%v allocations", best)
	}
}

func TestFailuresOfTheSourceReachTheReader(t *testing.T) {
	broken := errors.New("broken")
	for name, hook := range map[string]func(int64, int) error{
		"error": func(int64, int) error { return broken },
		"panic": func(int64, int) error { panic(broken) },
	} {
		t.Run(name, func(t *testing.T) {
			f, source := layerFS(t, expertShape{experts: 2, hidden: 256, intermediate: 256},
				Options{Workers: 4})
			source.hook = hook
			r, _ := f.ReaderAt(singleName)
			buf := make([]byte, 512<<10)
			n, err := r.ReadAt(buf, 4096)
			var p *units.PanicError
			if n != 0 || !errors.Is(err, broken) && !errors.As(err, &p) {
				t.Errorf("%d, %v", n, err)
			}
			wantIdle(t, f) // another fill may still be failing
			source.hook = nil
			if _, err := r.ReadAt(buf, 4096); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			wantIdle(t, f)
		})
	}
}

// stalledFS is a tree of two files with a layer each; the source of the second does not answer
// before it is released.
func stalledFS(t *testing.T, x expertShape, o Options) (f *FS, names []string, release func()) {
	t.Helper()
	good, bad := &memory{name: "good"}, &memory{name: "bad"}
	hold := make(chan struct{})
	bad.hook = func(int64, int) error { <-hold; return nil }
	a, _ := x.layer(t, good)
	b, _ := x.layer(t, bad)
	b.Name, b.Group = "stalled", "other"
	o.tuning.Check = true
	f, err := New(nil, []View{{Plan: &adapter.Plan{Tensors: []adapter.Tensor{a, b}}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(func() {
		release()
		f.Close()
	})
	return f, shardsOf(t, f, "."), release
}

func TestAStalledFileStopsNobodyElse(t *testing.T) {
	x := expertShape{experts: 8, hidden: 256, intermediate: 256}
	f, names, release := stalledFS(t, x, Options{CacheSize: 4 * x.hidden * x.intermediate})
	ok, err := f.ReaderAt(names[0])
	if err != nil {
		t.Fatal(err)
	}
	stuck, err := f.ReaderAt(names[1])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for e := range x.experts { // more than there is room for
		wg.Go(func() {
			buf := make([]byte, 4096)
			_, err := stuck.ReadAtContext(ctx, buf, 4096+e*x.hidden*x.intermediate*4)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("stuck: %v", err)
			}
		})
	}
	eventually(t, "readers are stuck", func() bool { return f.Stats().Waiting == x.experts })
	whole := make([]byte, ok.Size())
	if _, err := ok.ReadAt(whole, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	cancel() // readers of the stalled file can be killed
	wg.Wait()
	if n := f.Stats().Errors; n != 0 {
		t.Errorf("%d reads failed, although their readers gave them up", n)
	}
	release()
	wantIdle(t, f)
	again := make([]byte, stuck.Size())
	if _, err := stuck.ReadAt(again, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(again[4096:], whole[4096:]) {
		t.Error("after the stall the bytes are wrong")
	}
}
