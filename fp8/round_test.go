package fp8

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/x448/float16"
)

func oracleFromF16(h uint16) float32 { return float16.Frombits(h).Float32() }

// oracleBF16 rounds by choosing between the two neighbours, exactly in float64.
func oracleBF16(f float32) uint16 {
	if f != f {
		return uint16(math.Float32bits(f)>>16)&0x8000 | 0x7fc0
	}
	below := uint16(math.Float32bits(f) >> 16) // towards zero
	if math.IsInf(float64(f), 0) {
		return below
	}
	value := func(h uint16) float64 {
		if h&0x7fff == 0x7f80 { // infinity is in the place of the next number
			return math.Copysign(0x1p128, 1-2*float64(h>>15))
		}
		return float64(math.Float32frombits(uint32(h) << 16))
	}
	down, up := math.Abs(float64(f)-value(below)), math.Abs(value(below+1)-float64(f))
	if up < down || up == down && below&1 == 1 {
		return below + 1
	}
	return below
}

// interesting yields float32s near the borders of all formats, and random ones.
func interesting(yield func(float32) bool) {
	r := rand.New(rand.NewPCG(1, 2))
	for e := range uint32(256) {
		for _, m := range []uint32{0, 1, 0x0fff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x7fff,
			0x8000, 0x8001, 0x18000, 0xffff, 0x10000,
			0x7fe000, 0x7fefff, 0x7ff000, 0x7ff001, 0x7f7fff, 0x7f8000, 0x7fffff, 0x400000} {
			for _, sign := range []uint32{0, 1 << 31} {
				if !yield(math.Float32frombits(sign | e<<23 | m)) {
					return
				}
			}
		}
		for range 2000 {
			if !yield(math.Float32frombits(r.Uint32()&^(0xff<<23) | e<<23)) {
				return
			}
		}
	}
}

func TestRoundingIsToNearestEven(t *testing.T) {
	for f := range interesting {
		if got, want := RoundBF16(f), oracleBF16(f); got != want {
			t.Fatalf("RoundBF16(%x) = %#04x, want %#04x", math.Float32bits(f), got, want)
		}
		if got, want := RoundF16(f), oracleF16(f); got != want {
			t.Fatalf("RoundF16(%x) = %#04x, want %#04x", math.Float32bits(f), got, want)
		}
	}
}

func TestRoundingByHand(t *testing.T) {
	for _, c := range []struct {
		f         float32
		bf16, f16 uint16
	}{
		{0, 0, 0},
		{float32(math.Copysign(0, -1)), 0x8000, 0x8000},
		{1, 0x3f80, 0x3c00},
		{1 + 0x1p-8, 0x3f80, 0x3c04},  // a tie of BF16, to even, down
		{1 + 0x3p-8, 0x3f82, 0x3c0c},  // a tie of BF16, to even, up
		{1 + 0x1p-11, 0x3f80, 0x3c00}, // a tie of F16
		{65504, 0x4780, 0x7bff},       // the largest of F16
		{65519.996, 0x4780, 0x7bff},   // rounds down to it
		{65520, 0x4780, 0x7c00},       // overflows
		{0x1p-24, 0x3380, 1},          // the smallest of F16
		{0x1p-25, 0x3300, 0},          // a tie with zero
		{0x1.8p-24, 0x33c0, 2},        // a tie, up
		{math.MaxFloat32, 0x7f80, 0x7c00},
		{0x1p-149, 0, 0},
		{0x1p-133, 1, 0}, // the smallest of BF16
		{float32(math.Inf(-1)), 0xff80, 0xfc00},
		{float32(math.NaN()), 0x7fc0, 0x7e00},
	} {
		if b, h := RoundBF16(c.f), RoundF16(c.f); b != c.bf16 || h != c.f16 {
			t.Errorf("%v: %#04x, %#04x, want %#04x, %#04x", c.f, b, h, c.bf16, c.f16)
		}
	}
}

func TestWideningIsExact(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if got, want := FromF16(h), oracleFromF16(h); !sameNumber(got, want) ||
			got != got && math.Float32bits(got)&0x7fffffff != quietF32 {
			t.Fatalf("FromF16(%#04x) = %v, want %v", h, got, want)
		}
		if back := RoundF16(FromF16(h)); back != h && h&0x7fff <= 0x7c00 {
			t.Fatalf("F16 %#04x comes back as %#04x", h, back)
		}
		if back := RoundBF16(FromBF16(h)); back != h && h&0x7fff <= 0x7f80 {
			t.Fatalf("BF16 %#04x comes back as %#04x", h, back)
		}
	}
}

func TestConvert(t *testing.T) {
	var src []byte
	n := 0
	for f := range interesting {
		if n%7 == 0 {
			src = appendF32(src, f)
		}
		n++
	}
	n = len(src) / 4
	half := make([]byte, 2*n)
	for _, c := range []struct {
		mid   Format
		round func(float32) uint16
	}{{BF16, oracleBF16}, {F16, RoundF16}} {
		Convert(half, c.mid, src, F32, n)
		for i := range n {
			if got, want := wordAt(half, i), c.round(number(src, F32, i)); got != want {
				t.Fatalf("F32 %v to %v: %#04x, want %#04x", number(src, F32, i), c.mid, got, want)
			}
		}
		wide := make([]byte, 4*n)
		Convert(wide, F32, half, c.mid, n)
		for _, to := range []Format{BF16, F16} {
			again := make([]byte, 2*n)
			Convert(again, to, half, c.mid, n)
			through := make([]byte, 2*n)
			Convert(through, to, wide, F32, n)
			for i := range n {
				if !sameNumber(number(again, to, i), number(through, to, i)) {
					t.Fatalf("%v %#04x to %v: %#04x, want %#04x",
						c.mid, wordAt(half, i), to, wordAt(again, i), wordAt(through, i))
				}
			}
		}
	}
}

func oracleF16(f float32) uint16 {
	h := float16.Fromfloat32(f).Bits()
	if f != f {
		return h&0x8000 | 0x7e00
	}
	return h
}
