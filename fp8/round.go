package fp8

import "math"

// The quiet NaNs that results get.
const (
	quietBF16 = 0x7fc0
	quietF16  = 0x7e00
	quietF32  = 0x7fc00000
)

// RoundBF16 rounds to the nearest BF16, ties to even. A NaN becomes the quiet one with the sign of f.
func RoundBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16)&0x8000 | quietBF16
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// FromBF16 widens, exactly; a NaN keeps its payload.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// RoundF16 rounds to the nearest F16, ties to even: from 65520 on infinity, below 2^-14 subnormal.
// A NaN becomes the quiet one with the sign of f.
func RoundF16(f float32) uint16 {
	const half = 0x3f000000 // 0.5, whose last place is the step of F16's subnormals, 2^-24
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

// FromF16 widens, exactly. A NaN becomes the quiet one with the sign of h.
func FromF16(h uint16) float32 {
	sign, u := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case u > 0x7c00:
		return math.Float32frombits(sign | quietF32)
	case u == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	}
	// Shifted into place the exponent is 112 too small; the product is exact, for subnormals too.
	f := math.Float32frombits(u<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(f))
}
