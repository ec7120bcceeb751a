package adapter

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	cases "github.com/dequantfs/dequantfs/testdata/formats"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// Every format is quantized from the F32 values of the oracle, whatever dtype the view has.
// Weights that it leaves alone have that dtype.
func TestEveryFormatIsQuantizedFromF32(t *testing.T) {
	matrices := 0
	for _, test := range cases.All() {
		if isPending(t, "case "+test.Name) || test.Name == "Mistral's own layout" { // hf alone
			continue
		}
		t.Run(test.Name, func(t *testing.T) {
			for _, seed := range size.Seeds(t) {
				k := test.Make(seed)
				dir := t.TempDir()
				if err := k.Write(dir); err != nil {
					t.Fatal(err)
				}
				c := openedAt(t, dir)
				for name, d := range dtypes {
					matrices += wantQuantized(t, dict(t, c, Options{Layout: LayoutHFFP8, DType: d}), name, k)
				}
			}
		})
	}
	if matrices < 50 {
		t.Errorf("only %d matrices were quantized", matrices)
	}
}

// wantQuantized compares a view with the oracle, and counts the weights that must be quantized. NaN
// are equal to each other.
func wantQuantized(t *testing.T, d *StateDict, dtype string, k *cases.Checkpoint) (matrices int) {
	t.Helper()
	for _, w := range k.HF {
		scales, isQuantized := d.Tensor(w.Name + "_scale_inv")
		if len(w.Shape) == 2 && strings.HasSuffix(w.Name, "_proj.weight") {
			matrices++
			if !isQuantized {
				t.Errorf("%s: not quantized", w.Name)
			}
		}
		if !isQuantized {
			wantSame(t, mustTensor(t, d, w.Name), w.Tensor(dtype))
			continue
		}
		i := slices.IndexFunc(k.Tensors, func(x synth.Tensor) bool { return x.Name == w.Name })
		if i >= 0 && k.Tensors[i].DType == "F8_E4M3" &&
			bytes.Equal(content(t, mustTensor(t, d, w.Name)), k.Tensors[i].Data) {
			continue // in blocks of 128 × 128 already
		}
		codes, grid := quantized(widened(w.Tensor("F32")), false)
		wantSame(t, mustTensor(t, d, w.Name), codes)
		wantSame(t, scales, grid)
	}
	return matrices
}

// widened gives a plain tensor that oracles know. They read F16 as F32.
func widened(x synth.Tensor) synth.Tensor {
	if x.DType == "F16" {
		return castTo(x, "F32")
	}
	return x
}

// wantSame compares a tensor with its oracle.
func wantSame(t *testing.T, got *Lazy, want synth.Tensor) {
	t.Helper()
	if got.DType().String() != want.DType || !slices.Equal(got.Shape(), want.Shape) {
		t.Errorf("%s: %s %v, want %s %v", got.Name(), got.DType(), got.Shape(), want.DType, want.Shape)
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
