package formats

import (
	"encoding/binary"
	"math"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// special are scales that arithmetic may get wrong. They round to the specials of each dtype.
var special = []float32{
	0, float32(math.Copysign(0, -1)), 1, -1, -0.0123, 0x1p-149, -0x1p-149, 0x1p-133, 0x1p-126,
	-0x1.fcp-127, 0x1p-24, -0x1p-14, 0x1.ff8p-15, 65504, -65504, 65536, 448, 0x1p-9,
	math.MaxFloat32, -math.MaxFloat32, 0x1.fep127, 1e-30, -1e30, 0x1.000002p0, float32(math.Inf(1)),
	float32(math.Inf(-1)), float32(math.NaN()),
}

// scale gives the bytes of a random scale. One in three is special.
func (b *builder) scale(dtype string) []byte {
	if dtype == "U8" || dtype == "F8_E8M0" {
		return []byte{b.exponent()}
	}
	if dtype == "F8_E4M3" { // all of them, also both NaN
		return []byte{byte(b.rng.Uint32())}
	}
	x := float32(math.Ldexp(b.rng.NormFloat64(), b.rng.IntN(24)-20))
	if b.rng.IntN(3) == 0 {
		x = special[b.rng.IntN(len(special))]
	}
	return synth.Round(dtype, x)
}

// exponent gives a random exponent. One in three is special.
func (b *builder) exponent() byte {
	if b.rng.IntN(3) == 0 {
		return []byte{0, 1, 2, 127, 253, 254, 255}[b.rng.IntN(7)]
	}
	return byte(107 + b.rng.IntN(40))
}

// number decodes element i of a tensor, by the definition of its dtype.
func number(t *tensor, i int64) float32 {
	switch t.DType {
	case "F32":
		return math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	case "BF16":
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
	case "F16":
		return half(binary.LittleEndian.Uint16(t.Data[2*i:]))
	case "F8_E4M3":
		return synth.E4M3(t.Data[i])
	case "F8_E8M0", "U8": // a byte is an exponent where it is a scale
		return synth.E8M0(t.Data[i])
	case "I8":
		return float32(int8(t.Data[i]))
	}
	panic("formats: no number of dtype " + t.DType)
}

// half decodes a number of IEEE's binary16.
func half(bits uint16) float32 {
	exponent, mantissa := int(bits>>10&31), float64(bits&1023)
	x := math.Ldexp(1+mantissa/1024, exponent-15)
	switch {
	case exponent == 0:
		x = math.Ldexp(mantissa, -24)
	case exponent == 31 && mantissa == 0:
		x = math.Inf(1)
	case exponent == 31:
		return float32(math.NaN())
	}
	if bits>>15 != 0 {
		x = -x
	}
	return float32(x)
}

// e2m1 decodes a code of four bits. Code 8 is −0.
func e2m1(code byte) float32 {
	x := [8]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6}[code&7]
	if code&8 != 0 {
		x = -x
	}
	return x
}

// e2m1Positive is e2m1 with the tables in which code 8 is +0.
func e2m1Positive(code byte) float32 {
	if code == 8 {
		return 0
	}
	return e2m1(code)
}

// low reads nibble i of bytes whose low nibbles come first.
func low(data []byte, i int64) byte { return data[i/2] >> (i % 2 * 4) & 15 }

// high reads nibble i of bytes whose high nibbles come first.
func high(data []byte, i int64) byte { return data[i/2] >> (4 - i%2*4) & 15 }

// field reads field i of a stream whose least significant bits come first.
func field(stream []byte, bits, i int64) (v int64) {
	for k := range bits {
		at := i*bits + k
		v |= int64(stream[at/8]>>(at%8)&1) << k
	}
	return v
}

// row is the stream of words of one row of a matrix of I32.
func row(t *tensor, i int64) []byte {
	width := 4 * t.Shape[1]
	return t.Data[i*width : (i+1)*width]
}

// column is the stream of words of one column of a matrix of I32.
func column(t *tensor, j int64) (stream []byte) {
	for i := range t.Shape[0] {
		at := 4 * (i*t.Shape[1] + j)
		stream = append(stream, t.Data[at:at+4]...)
	}
	return stream
}

// product multiplies, and rounds once to float32.
func product(a, b float32) float32 { return float32(a * b) }

// ceil divides and rounds up.
func ceil(a, b int64) int64 { return (a + b - 1) / b }

// elements is the number of elements of a tensor.
func elements(t *tensor) int64 { return t.Size() / int64(synth.Width(t.DType)) }
