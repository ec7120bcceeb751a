package fp8

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Transpose writes the transposition of src (rows × cols elements of size bytes, rows srcStride bytes
// apart) into dst (cols × rows, rows dstStride bytes apart). size is 1, 2, 4 or 8. dst and src must not overlap.
func Transpose(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	if size != 1 && size != 2 && size != 4 && size != 8 {
		panic(fmt.Sprintf("fp8: cannot transpose elements of %d bytes", size))
	}
	if rows < 0 || cols < 0 || rows > math.MaxInt/size || cols > math.MaxInt/size {
		panic(fmt.Sprintf("fp8: cannot transpose %d × %d elements", rows, cols))
	}
	checkRows("source", src, rows, srcStride, cols*size)
	checkDst(dst, cols, dstStride, rows*size)
	if rows == 0 || cols == 0 {
		return
	}
	checkApart(dst[:extent("destination", cols, dstStride, rows*size)], src[:extent("source", rows, srcStride, cols*size)])
	transpose(dst, dstStride, src, srcStride, rows, cols, size)
}

// tile is the side, in bytes, of the square that is transposed at a time: a cache line of both sides.
const tile = 64

func transposeGeneric(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	side := tile / size
	for r := 0; r < rows; r += side {
		for c := 0; c < cols; c += side {
			transposeTile(dst[c*dstStride+r*size:], dstStride, src[r*srcStride+c*size:], srcStride, min(side, rows-r), min(side, cols-c), size)
		}
	}
}

// transposeTile transposes whole squares of 8 × 8 bytes in registers, and the rest element by element.
func transposeTile(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	wholeRows, wholeCols := 0, 0
	if size == 1 {
		wholeRows, wholeCols = rows&^7, cols&^7
		for r := 0; r < wholeRows; r += 8 {
			for c := 0; c < wholeCols; c += 8 {
				transpose8x8(dst[c*dstStride+r:], dstStride, src[r*srcStride+c:], srcStride)
			}
		}
	}
	if wholeCols < cols {
		transposeElements(dst[wholeCols*dstStride:], dstStride, src[wholeCols*size:], srcStride, wholeRows, cols-wholeCols, size)
	}
	if wholeRows < rows {
		transposeElements(dst[wholeRows*size:], dstStride, src[wholeRows*srcStride:], srcStride, rows-wholeRows, cols, size)
	}
}

func transposeElements(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	for r := range rows {
		for c := range cols {
			d, s := dst[c*dstStride+r*size:], src[r*srcStride+c*size:]
			switch size {
			case 1:
				d[0] = s[0]
			case 2:
				binary.LittleEndian.PutUint16(d, binary.LittleEndian.Uint16(s))
			case 4:
				binary.LittleEndian.PutUint32(d, binary.LittleEndian.Uint32(s))
			case 8:
				binary.LittleEndian.PutUint64(d, binary.LittleEndian.Uint64(s))
			}
		}
	}
}

// transpose8x8 swaps quarters of 4, then 2, then 1 bytes across the diagonal.
func transpose8x8(dst []byte, dstStride int, src []byte, srcStride int) {
	var a [8]uint64
	for i := range a {
		a[i] = binary.LittleEndian.Uint64(src[i*srcStride:])
	}
	for i := range 4 {
		a[i], a[i+4] = swap(a[i], a[i+4], 32, 0x00000000ffffffff)
	}
	for i := range 4 {
		j := i&1 | i&2<<1
		a[j], a[j+2] = swap(a[j], a[j+2], 16, 0x0000ffff0000ffff)
	}
	for i := range 4 {
		a[2*i], a[2*i+1] = swap(a[2*i], a[2*i+1], 8, 0x00ff00ff00ff00ff)
	}
	for i := range a {
		binary.LittleEndian.PutUint64(dst[i*dstStride:], a[i])
	}
}

// swap exchanges the upper parts of x with the lower parts of y.
func swap(x, y uint64, shift uint, low uint64) (uint64, uint64) {
	t := (x>>shift ^ y) & low
	return x ^ t<<shift, y ^ t
}
