package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// Packed describes a weight whose codes are smaller than a byte, or are whole numbers.
//
// An element is round((number - zero) × scale). [fp8.DequantizeGroups] describes the arithmetic.
type Packed struct {
	Codes  *Source // words of codes; only the size of its dtype counts
	Shape  []int64 // of the codes: a matrix, or a stack of matrices
	Pack   Pack
	Values *[16]float32 // the numbers of codes of at most 4 bits; nil: whole numbers from 0
	Signed bool         // codes of 8 bits are two's complement
	Scales Scales
	Zeros  Zeros
	Groups Groups
	Out    safetensors.DType // BF16, F16 or F32
}

// Pack is how the codes of a matrix lie in words.
type Pack struct {
	Bits  int       // 2, 3, 4 or 8
	Order fp8.Order // of the codes in a word
	Down  bool      // the codes of a word belong to one column, not to one row
}

// Scales is a grid of scales in the orientation of the codes. A stack has a grid for each matrix,
// or one for all.
type Scales struct {
	Source *Source  // F32, BF16, F16, F8_E4M3, or exponents of two (F8_E8M0 or U8)
	Block  [2]int64 // rows and columns under one scale; 0 is the whole axis

	// Second is a second scale: one number, or one for each matrix. The scales are multiplied by it,
	// or divided if Divides is set, and rounded to float32. nil: there is none.
	Second  *Source
	Divides bool

	// Nested decodes scales that are codes themselves (U8). nil: they are not.
	Nested *Nested
}

// Nested describes scales that are quantized. Scale i is Map[code] × Absmax[i / Block] + Offset,
// where the product and the sum are each rounded to float32.
type Nested struct {
	Map    *Source // F32 [256]
	Absmax *Source // F32
	Block  int64
	Offset float32
}

// Zeros is a grid of zero points in the same places as the scales. Without a source, all are
// Constant.
type Zeros struct {
	Source   *Source
	Pack     Pack
	Signed   bool // zero points of 8 bits are two's complement
	Plus     int  // added to each stored zero point, modulo 2^Bits
	Constant int
}

// Groups says which group each row or column of the codes belongs to. Without a source, groups
// follow each other in the blocks of the scales.
type Groups struct {
	Source *Source // I32, one for each row or column
	Axis   int     // 0: of rows; 1: of columns
}

// DequantizePacked returns a node with the values of a packed weight. The node has the shape
// p.Shape and the dtype p.Out. Sources whose sizes do not fit are errors, which name the tensor.
func DequantizePacked(p *Packed) (Node, error) {
	return nil, fmt.Errorf("%s: packed weights are not decoded", p.Codes.Key)
}
