package fs

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/units"
)

// advised is a source that notes how far it was read, and what advice it got.
type advised struct {
	memory
	furthest, let atomic.Int64
}

func (a *advised) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	for end := off + int64(len(p)); ; {
		if old := a.furthest.Load(); old >= end || a.furthest.CompareAndSwap(old, end) {
			return a.memory.ReadAt(ctx, p, off)
		}
	}
}

func (a *advised) Advise(_, n int64, dontneed bool) {
	if dontneed {
		a.let.Add(n)
	}
}

// plainFS is a tree with one tensor that is shown as it is.
func plainFS(t *testing.T, n int64, o Options) (*FS, *advised) {
	t.Helper()
	source := &advised{memory: memory{name: "source", size: n}}
	load, err := expr.Load(&expr.Source{Key: "x", File: source, DType: safetensors.U8,
		Shape: []int64{n}})
	if err != nil {
		t.Fatal(err)
	}
	return treeOf(t, o, adapter.Tensor{Name: "x", Node: load, Group: "g"}), source
}

func TestSequentialReadingReadsAheadAndLetsGoBehind(t *testing.T) {
	for mode, drops := range map[units.SourceCache]bool{units.SourceAuto: false,
		units.SourceKeep: false, units.SourceDrop: true} {
		const n = 96 << 20
		f, source := plainFS(t, n, Options{SourceCache: mode})
		r, err := f.ReaderAt(singleName)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		for off := int64(0); off < n; off += int64(len(buf)) {
			if _, err := r.ReadAt(buf, off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if off == 4<<20 && source.furthest.Load() > 20<<20 {
				t.Errorf("mode %d: after 5 MiB it is at %d", mode, source.furthest.Load())
			}
			if off == 32<<20 {
				eventually(t, "it is far ahead", func() bool {
					return source.furthest.Load() >= 56<<20
				})
			}
		}
		if let := source.let.Load(); (let > 0) != drops || let > n {
			t.Errorf("mode %d: let go of %d bytes", mode, let)
		}
	}
}

func TestRandomReadingReadsNothingAhead(t *testing.T) {
	f, source := plainFS(t, 512<<20, Options{})
	r, _ := f.ReaderAt(singleName)
	buf := make([]byte, 4096)
	for i := range int64(200) {
		if _, err := r.ReadAt(buf, i*104729*4096%(500<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.Stats(); s.ReadAhead != 0 || s.SourceBytes > 200*4096 {
		t.Errorf("read %d bytes, holds %d, up to %d", s.SourceBytes, s.ReadAhead,
			source.furthest.Load())
	}
}
