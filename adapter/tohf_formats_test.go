package adapter

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	cases "github.com/dequantfs/dequantfs/testdata/formats"
	"github.com/dequantfs/dequantfs/testdata/inmemory"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// Every format is quantized from the F32 values of the oracle, whatever dtype the view has.
// Weights that it leaves alone have that dtype.
func TestEveryFormatIsQuantizedFromF32(t *testing.T) {
	t.Parallel()
	for _, test := range cases.All() {
		if test.Name == "Mistral's own layout" { // hf alone
			continue
		}
		t.Run(test.Name, func(t *testing.T) {
			for _, seed := range size.Seeds(t) {
				k := test.Make(seed)
				dir := inmemory.Dir(t)
				if err := k.Write(dir); err != nil {
					t.Fatal(err)
				}
				wantQuantized(t, openedAt(t, dir), k)
			}
		})
	}
}

// wantQuantized compares the view in each dtype with the oracle.
func wantQuantized(t *testing.T, c *Checkpoint, k *cases.Checkpoint) {
	t.Helper()
	views := map[string]*StateDict{}
	for dtype, d := range dtypes {
		views[dtype] = dict(t, c, Options{Layout: LayoutHFFP8, DType: d})
	}
	for _, w := range k.HF {
		_, isQuantized := views["BF16"].Tensor(w.Name + "_scale_inv")
		if len(w.Shape) == 2 && strings.HasSuffix(w.Name, "_proj.weight") && !isQuantized {
			t.Errorf("%s: not quantized", w.Name)
		}
		var codes, grid synth.Tensor
		if isQuantized {
			codes, grid = quantized(widened(w.Tensor("F32")), false)
		}
		for dtype, d := range views {
			got := mustTensor(t, d, w.Name)
			switch {
			case !isQuantized:
				wantSame(t, got, w.Tensor(dtype))
			case !isStored(k, w.Name, content(t, got)): // in blocks of 128 × 128 already
				wantSame(t, got, codes)
				wantSame(t, mustTensor(t, d, w.Name+"_scale_inv"), grid)
			}
		}
	}
}

// isStored reports whether a tensor of the source has these codes.
func isStored(k *cases.Checkpoint, name string, codes []byte) bool {
	return slices.ContainsFunc(k.Tensors, func(x synth.Tensor) bool {
		return x.Name == name && x.DType == "F8_E4M3" && bytes.Equal(x.Data, codes)
	})
}

// widened gives a plain tensor that oracles know. They read F16 as F32.
func widened(x synth.Tensor) synth.Tensor {
	if x.DType == "F16" {
		return castTo(x, "F32")
	}
	return x
}

// wantSame compares a tensor with its oracle. NaN are equal to each other.
func wantSame(t *testing.T, got *Lazy, want synth.Tensor) {
	t.Helper()
	if got.DType().String() != want.DType || !slices.Equal(got.Shape(), want.Shape) {
		t.Errorf("%s: %s %v, want %s %v", got.Name(), got.DType(), got.Shape(), want.DType,
			want.Shape)
		return
	}
	size := got.DType().Bits() / 8
	for i, b := 0, content(t, got); i < len(b); i += size {
		g, w := b[i:][:size], want.Data[i:][:size]
		if !bytes.Equal(g, w) && !(isNaN(got.DType(), g) && isNaN(got.DType(), w)) {
			t.Errorf("%s: element %d is %x, want %x", got.Name(), i/size, g, w)
			return
		}
	}
}

// isNaN reports whether the little-endian bytes are a NaN: all bits of the exponent, and another.
func isNaN(d safetensors.DType, b []byte) bool {
	last := len(b) - 1
	switch d {
	case safetensors.F8E4M3:
		return b[0]&0x7f == 0x7f
	case safetensors.BF16, safetensors.F32:
		return b[last]&0x7f == 0x7f && b[last-1]&0x80 != 0 &&
			(b[last-1]&0x7f != 0 || bytes.Trim(b[:last-1], "\x00") != nil)
	case safetensors.F16:
		return b[1]&0x7c == 0x7c && (b[1]&3 != 0 || b[0] != 0)
	}
	return false
}
