package safetensors

import (
	"fmt"
	"math"
	"math/bits"
)

// DType is a safetensors element type.
type DType uint8

// The element types of the format, narrow ones first. The reference serializer sorts by this order
// and writes the widest first.
const (
	Invalid DType = iota
	Bool
	F4
	F6E2M3
	F6E3M2
	U8
	I8
	F8E5M2
	F8E4M3
	F8E8M0
	F8E4M3FNUZ
	F8E5M2FNUZ
	I16
	U16
	F16
	BF16
	I32
	U32
	F32
	C64
	F64
	I64
	U64
)

var dtypes = [...]struct {
	name string
	bits int
}{
	Invalid:    {"INVALID", 0},
	Bool:       {"BOOL", 8},
	F4:         {"F4", 4},
	F6E2M3:     {"F6_E2M3", 6},
	F6E3M2:     {"F6_E3M2", 6},
	U8:         {"U8", 8},
	I8:         {"I8", 8},
	F8E5M2:     {"F8_E5M2", 8},
	F8E4M3:     {"F8_E4M3", 8},
	F8E8M0:     {"F8_E8M0", 8},
	F8E4M3FNUZ: {"F8_E4M3FNUZ", 8},
	F8E5M2FNUZ: {"F8_E5M2FNUZ", 8},
	I16:        {"I16", 16},
	U16:        {"U16", 16},
	F16:        {"F16", 16},
	BF16:       {"BF16", 16},
	I32:        {"I32", 32},
	U32:        {"U32", 32},
	F32:        {"F32", 32},
	C64:        {"C64", 64},
	F64:        {"F64", 64},
	I64:        {"I64", 64},
	U64:        {"U64", 64},
}

var dtypeByName = func() map[string]DType {
	m := make(map[string]DType, len(dtypes))
	for d := Invalid + 1; int(d) < len(dtypes); d++ {
		m[dtypes[d].name] = d
	}
	return m
}()

// String returns the format's own name, such as "F8_E4M3".
func (d DType) String() string {
	if int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Bits returns the width of one element in bits. It is 0 for an invalid dtype.
func (d DType) Bits() int {
	if int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].bits
}

// ParseDType returns the dtype of a name such as "F8_E4M3". An unknown name is an error.
func ParseDType(s string) (DType, error) {
	if d, ok := dtypeByName[s]; ok {
		return d, nil
	}
	return Invalid, fmt.Errorf("unknown dtype %q", s)
}

// Size returns the number of bytes of a tensor of the given shape. A shape without dimensions is
// one element. A negative dimension, an overflow and a part of a byte are errors.
func Size(d DType, shape []int64) (int64, error) {
	if d.Bits() == 0 {
		return 0, fmt.Errorf("%v is not a dtype", d)
	}
	n := uint64(1)
	for _, dim := range shape {
		if dim < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		n = lo
	}
	hi, n := bits.Mul64(n, uint64(d.Bits()))
	if hi != 0 || n/8 > math.MaxInt64 {
		return 0, fmt.Errorf("%v of shape %v overflows", d, shape)
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("%v of shape %v is not a whole number of bytes", d, shape)
	}
	return int64(n / 8), nil
}
