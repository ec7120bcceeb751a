package fp8

import "math"

// The quiet NaNs of results.
const (
	quietBF16 = 0x7fc0
	quietF16  = 0x7e00
	quietF32  = 0x7fc00000
)

// RoundBF16 rounds to the nearest BF16, ties to even. A NaN becomes the quiet NaN with the sign of
// f.
func RoundBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16)&0x8000 | quietBF16
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// FromBF16 returns the exact value of a BF16. A NaN keeps its payload.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// RoundF16 rounds to the nearest F16, ties to even. From 65520 the result is infinity, and below
// 2^-14 it is subnormal. A NaN becomes the quiet NaN with the sign of f.
func RoundF16(f float32) uint16 {
	const half = 0x3f000000 // 0.5; its last place is 2^-24, the step of the subnormals of F16
	u := math.Float32bits(f)
	sign := uint16(u>>16) & 0x8000
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | quietF16
	case u >= 0x477ff000: // 65520
		return sign | 0x7c00
	case u < 0x38800000: // 2^-14
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-half)
	}
	return sign | uint16((u-112<<23+0xfff+u>>13&1)>>13)
}

// FromF16 returns the exact value of an F16. A NaN becomes the quiet NaN with the sign of h.
func FromF16(h uint16) float32 {
	sign, u := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case u > 0x7c00:
		return math.Float32frombits(sign | quietF32)
	case u == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	}
	// After the shift the exponent is 112 too small. The product is exact, even for subnormals.
	f := math.Float32frombits(u<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(f))
}
