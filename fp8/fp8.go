// Package fp8 holds number formats, and the kernels that convert between quantized and plain
// weights.
//
// Start with [Dequantize], which decodes a strided region of FP8 codes with its grid of scales, and
// with [Transpose]. [DequantizeGroups] decodes codes of 4 bits and whole numbers of 8 bits, which
// may have zero points. [Unpack] and [UnpackDown] take codes out of packed words first. [Quantize]
// is the inverse of Dequantize. [Convert] and [Scales] read and convert plain formats.
// [CalculateScaleShape] and [CreateScaleInvForWeight] describe grids.
//
// # Arithmetic
//
// A decoded element is round(float32(code) × scale). The product is one IEEE float32
// multiplication. It is then rounded once to the output format. Both steps round to nearest even
// and keep subnormals. Overflow gives infinity.
//
// A NaN result is the quiet NaN of the output format with the sign bit of its code. That is 0x7FC0
// in BF16, 0x7E00 in F16 and 0x7FC00000 in F32. DequantizeGroups subtracts a zero point before it
// multiplies, and its NaN is always positive.
//
// Every implementation gives the same bits for every input. [Implementation] names the one that
// runs.
//
// # Contract
//
// All functions may be called concurrently, keep none of their arguments, and work at any
// alignment. Buffers hold little-endian elements. Destination and source must not overlap. Bytes
// between the rows of the destination are not written.
//
// Lengths and strides are checked before the first write. A call that breaks the contract is a bug
// of the caller. It panics with a message that begins with "fp8:".
//
// The package does not build on big-endian machines.
package fp8

import (
	"fmt"
	"math"
)

// Format is an element format of codes, scales or plain values.
type Format uint8

// The formats.
const (
	E4M3FN Format = iota + 1 // 8 bits: bias 7, no infinity, 0x7F and 0xFF are NaN, at most 448
	E5M2                     // 8 bits: bias 15, IEEE-like, at most 57344
	E8M0                     // 8 bits: 2^(code-127), 0xFF is NaN; scales only
	E2M1                     // 4 bits: ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}
	BF16                     // the upper half of an F32
	F16                      // IEEE binary16
	F32                      // IEEE binary32
)

var formats = [...]struct {
	name string
	size int // bytes; 0: less than one
}{
	E4M3FN: {"E4M3FN", 1},
	E5M2:   {"E5M2", 1},
	E8M0:   {"E8M0", 1},
	E2M1:   {"E2M1", 0},
	BF16:   {"BF16", 2},
	F16:    {"F16", 2},
	F32:    {"F32", 4},
}

// String returns the name of the format.
func (f Format) String() string {
	if f == 0 || int(f) >= len(formats) {
		return fmt.Sprintf("Format(%d)", uint8(f))
	}
	return formats[f].name
}

// Size returns the number of bytes of an element. It is 0 for E2M1, which has two elements in a
// byte, and for an invalid format.
func (f Format) Size() int {
	if int(f) >= len(formats) {
		return 0
	}
	return formats[f].size
}

// Values of the codes. Those of E4M3FN, E5M2 and E2M1 are exact. Code 0 of E8M0 is the subnormal
// 2^-127.
var (
	valuesE4M3FN = table(256, decodeE4M3FN)
	valuesE5M2   = table(256, decodeE5M2)
	valuesE8M0   = table(256, decodeE8M0)
	valuesE2M1   = table(16, decodeE2M1)
)

func table(n int, decode func(code byte) float32) *[256]float32 {
	var t [256]float32
	for i := range t {
		t[i] = decode(byte(i % n))
	}
	return &t
}

// Values returns the values of all codes of a format of 8 bits or fewer. Codes that are not numbers
// are NaN. For E2M1 the upper four bits of a code are ignored. It panics for other formats. The
// caller must not change the table.
func (f Format) Values() *[256]float32 {
	switch f {
	case E4M3FN:
		return valuesE4M3FN
	case E5M2:
		return valuesE5M2
	case E8M0:
		return valuesE8M0
	case E2M1:
		return valuesE2M1
	}
	panic(fmt.Sprintf("fp8: %v has no table of codes", f))
}

func decodeE4M3FN(c byte) float32 {
	e, m := int(c>>3&15), int(c&7)
	if c&0x7f == 0x7f {
		return quietNaN(c)
	}
	return minifloat(c, e, m, 3, 7)
}

func decodeE5M2(c byte) float32 {
	e, m := int(c>>2&31), int(c&3)
	switch {
	case e == 31 && m != 0:
		return quietNaN(c)
	case e == 31:
		return float32(math.Copysign(math.Inf(1), signOf(c)))
	}
	return minifloat(c, e, m, 2, 15)
}

func decodeE8M0(c byte) float32 {
	if c == 0xff {
		return math.Float32frombits(quietF32)
	}
	return float32(math.Ldexp(1, int(c)-127))
}

func decodeE2M1(c byte) float32 {
	return minifloat(c<<4, int(c>>1&3), int(c&1), 1, 1)
}

// minifloat returns the value of a finite code. Its sign is the top bit of c.
func minifloat(c byte, e, m, bits, bias int) float32 {
	if e == 0 {
		e = 1
	} else {
		m |= 1 << bits
	}
	return float32(math.Copysign(math.Ldexp(float64(m), e-bias-bits), signOf(c)))
}

func signOf(c byte) float64 { return 1 - 2*float64(c>>7) }

func quietNaN(c byte) float32 {
	return math.Float32frombits(quietF32 | uint32(c&0x80)<<24)
}

// Scales reads len(dst) scales of format f from src as float32. f is F32, BF16, F16, E8M0, E4M3FN
// or E5M2. It panics unless src has exactly len(dst) scales.
func Scales(dst []float32, src []byte, f Format) {
	if f.Size() == 0 || len(src) != len(dst)*f.Size() {
		panic(fmt.Sprintf("fp8: %d bytes are not %d scales of format %v", len(src), len(dst), f))
	}
	if isPlain(f) {
		loadFloats(dst, src, f)
		return
	}
	values := f.Values()
	for i, c := range src {
		dst[i] = values[c]
	}
}
