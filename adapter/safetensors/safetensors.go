// Package safetensors reads and writes the safetensors container: an eight-byte
// length, a JSON header, and the tensors' bytes behind it without holes.
package safetensors

import (
	"errors"
	"io"
)

// DType is a safetensors element type.
type DType uint8

// The element types of the format.
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

// String gives the format's own name, "F8_E4M3".
func (d DType) String() string { return "" }

// Bits is the width of one element in bits.
func (d DType) Bits() int { return 0 }

// ParseDType reads the format's own name of a dtype.
func ParseDType(s string) (DType, error) { return Invalid, errors.ErrUnsupported }

// Size is the number of bytes of a tensor; an error if it overflows or is no
// whole number of bytes.
func Size(d DType, shape []int64) (int64, error) { return 0, errors.ErrUnsupported }

// Tensor is one entry of a header.
type Tensor struct {
	Name       string
	DType      DType
	Shape      []int64
	Begin, End int64 // bytes, relative to Header.DataOffset
}

// Header is the parsed and validated header of one file.
type Header struct {
	Tensors    []Tensor // in the order of their data
	Metadata   map[string]string
	DataOffset int64 // of the first tensor's first byte in the file
}

// ReadHeader parses and validates the header of a file of size bytes.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) { return nil, errors.ErrUnsupported }

// NewHeader lays the tensors out behind each other in the order given (Begin and
// End are set here) and returns the header with its encoded bytes, the eight
// length bytes included, padded with spaces so that data begins at a multiple of align.
func NewHeader(tensors []Tensor, metadata map[string]string, align int) (*Header, []byte, error) {
	return nil, nil, errors.ErrUnsupported
}

// Index is model.safetensors.index.json.
type Index struct {
	Metadata  map[string]any    // total_size and whatever else stood there
	WeightMap map[string]string // key to file name
}

// ParseIndex reads an index; duplicate keys are an error.
func ParseIndex(data []byte) (*Index, error) { return nil, errors.ErrUnsupported }

// Encode gives the index as indented JSON with sorted keys.
func (x *Index) Encode() ([]byte, error) { return nil, errors.ErrUnsupported }
