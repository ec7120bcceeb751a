// Package fp8 holds number formats and kernels.
package fp8

// Format is an element format of codes or scales.
type Format uint8

// The formats.
const (
	E4M3FN Format = iota + 1
	E5M2
	E8M0
	E2M1
	BF16
	F16
	F32
)

// Matrix is a strided 2-D region of codes with its grid of scales, rows × cols.
//
// Element (r, c) is Codes[r*Stride+c]; its scale is
// Scales[((Row+r)/Block[0])*ScaleStride + (Col+c)/Block[1]], where Row and Col are where the region
// begins in the whole tensor. A block of 0 means the whole axis.
type Matrix struct {
	Format      Format // E4M3FN or E5M2
	Codes       []byte
	Stride      int
	Rows, Cols  int
	Row, Col    int
	Block       [2]int
	Scales      []float32
	ScaleStride int
}

// Dequantize decodes m into dst, whose rows begin dstStride bytes apart, as BF16, F16 or F32 little endian.
func Dequantize(dst []byte, dstStride int, out Format, m *Matrix) {}

// Transpose writes the transposition of src (rows × cols elements of size bytes, rows srcStride bytes
// apart) into dst (cols × rows, rows dstStride bytes apart).
func Transpose(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {}

// Convert converts n elements between BF16, F16 and F32; dst and src must not overlap.
func Convert(dst []byte, to Format, src []byte, from Format, n int) {}

// Scales reads n scales of format f (F32, BF16, F16, E8M0, E4M3FN) as float32.
func Scales(dst []float32, src []byte, f Format) {}
