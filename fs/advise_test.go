package fs

import (
	"io"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// advised is a source that notes advice.
type advised struct {
	memory
	mu         sync.Mutex
	asked, let int64 // bytes
	furthest   int64
}

func (a *advised) Advise(off, n int64, dontneed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if dontneed {
		a.let += n
	} else {
		a.asked += n
		a.furthest = max(a.furthest, off+n)
	}
}

// plainFS is a tree with one tensor that is shown as it is.
func plainFS(t *testing.T, n int64, o Options) (*FS, *advised) {
	t.Helper()
	source := &advised{memory: memory{name: "source", size: n}}
	load, err := expr.Load(&expr.Source{Key: "x", File: source, DType: safetensors.U8, Shape: []int64{n}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(nil, []View{{Plan: &adapter.Plan{Tensors: []adapter.Tensor{{Name: "x", Node: load, Group: "g"}}}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, source
}

func TestSequentialReadingAsksAheadAndLetsGoBehind(t *testing.T) {
	for _, drop := range []bool{false, true} {
		const n = 96 << 20
		f, source := plainFS(t, n, Options{DropSource: drop})
		r, err := f.ReaderAt(singleName)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		for off := int64(0); off < n; off += int64(len(buf)) {
			if _, err := r.ReadAt(buf, off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if off == 8<<20 && source.furthest < 32<<20 {
				t.Errorf("asked only up to %d", source.furthest)
			}
		}
		if source.asked < n-8<<20 || source.asked > n {
			t.Errorf("asked for %d bytes of %d", source.asked, n)
		}
		if (source.let > 0) != drop || source.let > n {
			t.Errorf("let go of %d bytes", source.let)
		}
	}
}

func TestRandomReadingAsksForNothing(t *testing.T) {
	f, source := plainFS(t, 512<<20, Options{})
	r, _ := f.ReaderAt(singleName)
	buf := make([]byte, 4096)
	for i := range int64(200) {
		if _, err := r.ReadAt(buf, i*104729*4096%(500<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if source.asked > 0 {
		t.Errorf("asked for %d bytes", source.asked)
	}
}
