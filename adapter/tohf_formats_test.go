package adapter

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	oracle "github.com/dequantfs/dequantfs/testdata/formats"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// fewBits are beginnings of the names of cases whose weights are never FP8, so that each is
// quantized anew.
var fewBits = []string{"compressed-tensors INT", "compressed-tensors NVFP4",
	"compressed-tensors MXFP4", "AWQ", "GPTQ", "bitsandbytes", "ModelOpt NVFP4", "Quark MXFP4",
	"eleven experts of INT", "eleven experts of AWQ", "eleven experts of NVFP4"}

// Weights in few bits are quantized from their F32 values, so the bytes do not depend on the dtype.
func TestEveryFormatIsQuantizedFromF32(t *testing.T) {
	seed, tried := size.Seeds(t)[0], 0
	for _, test := range oracle.All() {
		if !slices.ContainsFunc(fewBits, func(s string) bool {
			return strings.HasPrefix(test.Name, s)
		}) {
			continue
		}
		tried++
		t.Run(test.Name, func(t *testing.T) {
			made := test.Make(seed)
			dir := t.TempDir()
			if err := made.Write(dir); err != nil {
				t.Fatal(err)
			}
			c := openedAt(t, dir)
			want := quantizedFormat(made)
			for _, d := range dtypes {
				wantCodes(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d}), want)
			}
		})
	}
	if tried < 80 {
		t.Errorf("only %d cases", tried)
	}
}

// quantizedFormat has each weight of two axes as codes and scales.
func quantizedFormat(c *oracle.Checkpoint) (want []synth.Tensor) {
	for _, w := range c.HF {
		if w.Values == nil || len(w.Shape) != 2 {
			continue
		}
		want = append(want, quantizedFinite(w)...)
	}
	return want
}

// quantizedFinite gives codes and scales. A scale follows from the largest finite magnitude.
// Infinities become the largest code, and NaN stays NaN.
func quantizedFinite(w oracle.Want) []synth.Tensor {
	rows, cols := w.Shape[0], w.Shape[1]
	r, c := ceilDiv(rows, 128), ceilDiv(cols, 128)
	grid := slices.Repeat([]float32{0}, int(r*c))
	of := func(i int) *float32 { return &grid[int64(i)/cols/128*c+int64(i)%cols/128] }
	for i, v := range w.Values {
		if a := math.Abs(float64(v)); a <= math.MaxFloat32 {
			*of(i) = max(*of(i), float32(a))
		}
	}
	codes := synth.Tensor{Name: w.Name, DType: "F8_E4M3", Shape: w.Shape}
	scales := synth.Tensor{Name: w.Name + "_scale_inv", DType: "F32", Shape: []int64{r, c}}
	for i := range grid {
		grid[i] = max(float32(grid[i]/448), 0x1p-126)
		scales.Data = append(scales.Data, synth.Round("F32", grid[i])...)
	}
	for i, v := range w.Values {
		code := byte(0x7f)
		if v == v {
			code = nearest(v / *of(i))
		}
		codes.Data = append(codes.Data, code)
	}
	return []synth.Tensor{codes, scales}
}

// wantCodes compares codes and scales. Where a scale is NaN, its sign and payload are free.
func wantCodes(t *testing.T, d *StateDict, want []synth.Tensor) {
	t.Helper()
	for _, w := range want {
		got, ok := d.Tensor(w.Name)
		if !ok {
			t.Errorf("%s: missing", w.Name)
			continue
		}
		b := content(t, got)
		if got.DType().String() != w.DType || !slices.Equal(got.Shape(), w.Shape) {
			t.Errorf("%s: %s %v, want %s %v", w.Name, got.DType(), got.Shape(), w.DType, w.Shape)
		} else if i := differingNumber(w.DType, b, w.Data); i >= 0 {
			n := synth.Width(w.DType)
			t.Errorf("%s: element %d is %x, want %x", w.Name, i, b[i*n:(i+1)*n], w.Data[i*n:(i+1)*n])
		}
	}
}

// differingNumber is the first element that differs, or −1. All NaN are alike.
func differingNumber(dtype string, got, want []byte) int {
	n := synth.Width(dtype)
	isNaN := func(b []byte) bool {
		x := synth.E4M3(b[0])
		if dtype == "F32" {
			x = number32(synth.Tensor{DType: dtype, Data: b}, 0)
		}
		return x != x
	}
	for i := 0; i < len(want); i += n {
		g, w := got[i:i+n], want[i:i+n]
		if !bytes.Equal(g, w) && !(isNaN(g) && isNaN(w)) {
			return i / n
		}
	}
	return -1
}
