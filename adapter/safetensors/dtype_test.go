package safetensors_test

import (
	"math"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

func TestDTypesHaveTheFormatsNamesAndWidths(t *testing.T) {
	want := []struct {
		name string
		bits int
	}{
		{"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8}, {"F8_E5M2", 8},
		{"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16},
		{"F16", 16}, {"BF16", 16}, {"I32", 32}, {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64},
		{"I64", 64}, {"U64", 64},
	}
	for i, w := range want {
		d, err := safetensors.ParseDType(w.name)
		if err != nil || d != safetensors.DType(i+1) || d.String() != w.name || d.Bits() != w.bits {
			t.Errorf("%s: got %v (%d bits), %v", w.name, d, d.Bits(), err)
		}
	}
	if last := safetensors.DType(len(want) + 1); last.Bits() != 0 {
		t.Errorf("%v has %d bits", last, last.Bits())
	}
	if safetensors.Invalid.Bits() != 0 {
		t.Error("the invalid dtype has a width")
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		dtype safetensors.DType
		shape []int64
		want  int64 // negative means an error
	}{
		{safetensors.F32, nil, 4},
		{safetensors.F32, []int64{0}, 0},
		{safetensors.BF16, []int64{3, 5, 7}, 210},
		{safetensors.F4, []int64{3, 2}, 3},
		{safetensors.F4, []int64{3}, -1},
		{safetensors.F6E2M3, []int64{4}, 3},
		{safetensors.F6E2M3, []int64{2}, -1},
		{safetensors.U8, []int64{1 << 60}, 1 << 60},
		{safetensors.U8, []int64{1 << 61}, -1},
		{safetensors.U16, []int64{math.MaxInt64}, -1},
		{safetensors.U8, []int64{1 << 32, 1 << 31}, -1},
		{safetensors.U8, []int64{1 << 32, 1 << 32}, -1},
		{safetensors.F4, []int64{1 << 61}, 1 << 60},
		{safetensors.U8, []int64{-1}, -1},
		{safetensors.Invalid, []int64{0}, -1},
		{safetensors.DType(200), []int64{0}, -1},
	} {
		got, err := safetensors.Size(c.dtype, c.shape)
		if c.want < 0 != (err != nil) || err == nil && got != c.want {
			t.Errorf("%v %v: got %d, %v, want %d", c.dtype, c.shape, got, err, c.want)
		}
	}
}
