package adapter

import (
	"context"
	"errors"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// fickle is a file whose reads panic, fail or succeed, in that order.
type fickle struct {
	steady.File
	reads int
}

func (f *fickle) Name() string { return "fickle" }

func (f *fickle) Size() int64 { return 64 }

func (f *fickle) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	f.reads++
	switch f.reads {
	case 1:
		panic("fickle")
	case 2:
		return 0, errors.New("fickle")
	}
	for i := range p {
		p[i] = 7
	}
	return len(p), nil
}

func TestAFillThatPanickedIsNotKept(t *testing.T) {
	n, err := expr.Load(&expr.Source{Key: "x", File: &fickle{}, DType: safetensors.U8,
		Shape: []int64{8, 8}})
	if err == nil {
		n, err = expr.Transpose(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	var units recentUnits
	get := func() (e expr.Entry, panicked bool, err error) {
		defer func() { panicked = recover() != nil }()
		n.Units(0, n.Size(), func(u *expr.Unit) bool {
			panicked = true
			e, err = units.Unit(u)
			return false
		})
		return e, false, err
	}
	if _, panicked, _ := get(); !panicked {
		t.Fatal("the first fill did not panic")
	}
	if e, _, err := get(); err == nil || errors.Is(err, errPanicked) {
		t.Fatalf("entry %v, error %v: want the second fill's own error", e, err)
	}
	e, _, err := get()
	if err != nil || len(e.Bytes()) != 64 || e.Bytes()[63] != 7 {
		t.Fatalf("entry %v, error %v", e, err)
	}
	if len(units.units) != 1 {
		t.Errorf("%d units are kept, want 1", len(units.units))
	}
}
