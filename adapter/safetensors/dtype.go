package safetensors

import (
	"fmt"
	"math"
	"math/bits"
)

// DType is a safetensors element type.
type DType uint8

// The element types of the format, narrow ones first, which is the order in which the
// reference serializer sorts them (the widest goes first into the file).
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

// String gives the format's own name, "F8_E4M3".
func (d DType) String() string {
	if int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Bits is the width of one element in bits; 0 for what is no dtype.
func (d DType) Bits() int {
	if int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].bits
}

// ParseDType reads the format's own name of a dtype.
func ParseDType(s string) (DType, error) {
	if d, ok := dtypeByName[s]; ok {
		return d, nil
	}
	return Invalid, fmt.Errorf("unknown dtype %q", s)
}

// Size is the number of bytes of a tensor; an error if it overflows or is no
// whole number of bytes. A shape without dimensions is one element.
func Size(d DType, shape []int64) (int64, error) {
	if d.Bits() == 0 {
		return 0, fmt.Errorf("no dtype: %v", d)
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
