package expr

import (
	"bytes"
	"math"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Values just beside the middle of two neighbours would be wrong if F32 came first: they become the
// middle in F32, and then the even neighbour.
func TestF64IsRoundedOnce(t *testing.T) {
	var values []float64
	for _, v := range []float64{1, 1.5, 0x1.fep0, 0x1p-14, 0x1p-24, 0x1p-126, 0x1p-133, 0x1p-149,
		65504, 65520, math.MaxFloat32, 0x1.ffp127, 0, 1e300, math.SmallestNonzeroFloat64} {
		for _, half := range []float64{0, 0x1p-8, 0x1p-9, 0x1p-11, 0x1p-12, 0x1p-24, 0x1p-25} {
			middle := v + v*half
			values = append(values, middle, math.Nextafter(middle, math.Inf(1)),
				math.Nextafter(middle, math.Inf(-1)), math.Nextafter(middle, 0)+v*0x1p-40)
		}
	}
	for _, v := range values {
		values = append(values, -v)
	}
	values = append(values, math.Inf(1), math.Inf(-1), math.NaN(), math.Copysign(0, -1))
	m := newMaker(t, 3)
	want := tensor{dtype: safetensors.F64, shape: []int64{int64(len(values))}}
	for _, v := range values {
		want.bits = append(want.bits, math.Float64bits(v))
	}
	n, err := Load(m.store("x", want))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []safetensors.DType{bf16, f16, f32} {
		c := m.both(want.cast(d))(Cast(n, d))
		got := make([]byte, c.Size())
		if err := c.ReadAt(nil, got, 0); err != nil {
			t.Fatal(err)
		}
		size := d.Bits() / 8
		for i, v := range values {
			one := tensor{d, []int64{1}, c.want.bits[i : i+1]}
			if b := got[i*size:][:size]; !bytes.Equal(b, one.bytes()) {
				t.Errorf("%v (%x) to %s: got %x, want %x", v, v, d, b, one.bytes())
			}
		}
	}
}
