package fp8

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Convert converts n elements between BF16, F16 and F32 and rounds to nearest even. It copies if
// the formats are equal. A NaN becomes the quiet NaN with its sign; only from BF16 to F32 it keeps
// its payload.
//
// It panics for other formats, if dst or src is too short, and if they overlap.
func Convert(dst []byte, to Format, src []byte, from Format, n int) {
	if !isPlain(to) || !isPlain(from) {
		panic(fmt.Sprintf("fp8: cannot convert %v to %v", from, to))
	}
	if n < 0 || n > len(dst)/to.Size() || n > len(src)/from.Size() {
		panic(fmt.Sprintf("fp8: cannot convert %d elements: %d bytes of %v to %d bytes of %v",
			n, len(src), from, len(dst), to))
	}
	dst, src = dst[:n*to.Size()], src[:n*from.Size()]
	checkApart(dst, src)
	if to == from {
		copy(dst, src)
		return
	}
	convert(dst, to, src, from)
}

func isPlain(f Format) bool { return f == BF16 || f == F16 || f == F32 }

// chunk is the number of values that are held as float32s at a time.
const chunk = 256

// convertGeneric converts all of src, which has as many values as dst.
func convertGeneric(dst []byte, to Format, src []byte, from Format) {
	var values [chunk]float32
	for n := len(src) / from.Size(); n > 0; n = len(src) / from.Size() {
		v := values[:min(n, chunk)]
		loadFloats(v, src, from)
		storeFloats(dst, to, v)
		dst, src = dst[len(v)*to.Size():], src[len(v)*from.Size():]
	}
}

// loadFloats reads len(dst) values of a plain format.
func loadFloats(dst []float32, src []byte, from Format) {
	src = src[:len(dst)*from.Size()]
	switch from {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = FromF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// storeFloats rounds all of src to a plain format.
func storeFloats(dst []byte, to Format, src []float32) {
	dst = dst[:len(src)*to.Size()]
	switch to {
	case F32:
		for i, f := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(f))
		}
	case BF16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], RoundBF16(f))
		}
	case F16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], RoundF16(f))
		}
	}
}
