package fp8

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Transpose writes the transposition of src to dst. src has rows × cols elements of size bytes, and
// its rows begin srcStride bytes apart. dst has cols × rows elements, and its rows begin dstStride
// bytes apart. size is 1, 2, 4 or 8.
//
// It panics for other sizes, if dst or src is too short, and if they overlap.
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
	checkApart(dst[:extent("destination", cols, dstStride, rows*size)],
		src[:extent("source", rows, srcStride, cols*size)])
	transpose(dst, dstStride, src, srcStride, rows, cols, size)
}

// tile is the side, in bytes, of a square that is transposed at a time: a cache line in both
// directions.
const tile = 64

// stripRows is the number of rows, a multiple of the side of every tile, before the next column of
// tiles. So the destination is written in runs of several lines, and each of its pages is visited
// once.
const stripRows = 512

func transposeGeneric(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	side := tile / size
	for strip := 0; strip < rows; strip += stripRows {
		end := min(rows, strip+stripRows)
		for c := 0; c < cols; c += side {
			for r := strip; r < end; r += side {
				transposeTile(dst[c*dstStride+r*size:], dstStride, src[r*srcStride+c*size:],
					srcStride, min(side, end-r), min(side, cols-c), size)
			}
		}
	}
}

// transposeTile transposes squares of 8 × 8 bytes or 4 × 4 words in registers, and the rest element
// by element.
func transposeTile(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	wholeRows, wholeCols := 0, 0
	if square := squares[size]; square.side > 0 {
		wholeRows, wholeCols = rows&^(square.side-1), cols&^(square.side-1)
		for r := 0; r < wholeRows; r += square.side {
			for c := 0; c < wholeCols; c += square.side {
				square.transpose(dst[c*dstStride+r*size:], dstStride, src[r*srcStride+c*size:],
					srcStride)
			}
		}
	}
	if wholeCols < cols {
		transposeElements(dst[wholeCols*dstStride:], dstStride, src[wholeCols*size:], srcStride,
			wholeRows, cols-wholeCols, size)
	}
	if wholeRows < rows {
		transposeElements(dst[wholeRows*size:], dstStride, src[wholeRows*srcStride:], srcStride,
			rows-wholeRows, cols, size)
	}
}

// squares are the squares that fit into registers, by the size of the elements.
var squares = [9]struct {
	side      int
	transpose func(dst []byte, dstStride int, src []byte, srcStride int)
}{
	1: {8, transpose8x8},
	2: {4, transpose4x4},
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

// transpose8x8 swaps quarters of 4, then 2, then 1 bytes across the diagonal. It uses pointers,
// because 32 bounds checks would cost more than the rest. Transpose has checked the bounds.
func transpose8x8(dst []byte, dstStride int, src []byte, srcStride int) {
	s := unsafe.Pointer(&src[:7*srcStride+8][0])
	a, e := swap(load64(s, 0), load64(s, 4*srcStride), 32, 0x00000000ffffffff)
	b, f := swap(load64(s, srcStride), load64(s, 5*srcStride), 32, 0x00000000ffffffff)
	c, g := swap(load64(s, 2*srcStride), load64(s, 6*srcStride), 32, 0x00000000ffffffff)
	d, h := swap(load64(s, 3*srcStride), load64(s, 7*srcStride), 32, 0x00000000ffffffff)
	a, c = swap(a, c, 16, 0x0000ffff0000ffff)
	b, d = swap(b, d, 16, 0x0000ffff0000ffff)
	e, g = swap(e, g, 16, 0x0000ffff0000ffff)
	f, h = swap(f, h, 16, 0x0000ffff0000ffff)
	a, b = swap(a, b, 8, 0x00ff00ff00ff00ff)
	c, d = swap(c, d, 8, 0x00ff00ff00ff00ff)
	e, f = swap(e, f, 8, 0x00ff00ff00ff00ff)
	g, h = swap(g, h, 8, 0x00ff00ff00ff00ff)
	t := unsafe.Pointer(&dst[:7*dstStride+8][0])
	store64(t, 0, a)
	store64(t, dstStride, b)
	store64(t, 2*dstStride, c)
	store64(t, 3*dstStride, d)
	store64(t, 4*dstStride, e)
	store64(t, 5*dstStride, f)
	store64(t, 6*dstStride, g)
	store64(t, 7*dstStride, h)
}

// transpose4x4 does the same for words: quarters of 2, then of 1.
func transpose4x4(dst []byte, dstStride int, src []byte, srcStride int) {
	s := unsafe.Pointer(&src[:3*srcStride+8][0])
	a, c := swap(load64(s, 0), load64(s, 2*srcStride), 32, 0x00000000ffffffff)
	b, d := swap(load64(s, srcStride), load64(s, 3*srcStride), 32, 0x00000000ffffffff)
	a, b = swap(a, b, 16, 0x0000ffff0000ffff)
	c, d = swap(c, d, 16, 0x0000ffff0000ffff)
	t := unsafe.Pointer(&dst[:3*dstStride+8][0])
	store64(t, 0, a)
	store64(t, dstStride, b)
	store64(t, 2*dstStride, c)
	store64(t, 3*dstStride, d)
}

func load64(p unsafe.Pointer, offset int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(p, offset))[:])
}

func store64(p unsafe.Pointer, offset int, v uint64) {
	binary.LittleEndian.PutUint64((*[8]byte)(unsafe.Add(p, offset))[:], v)
}

// swap exchanges the upper parts of x with the lower parts of y.
func swap(x, y uint64, shift uint, low uint64) (uint64, uint64) {
	t := (x>>shift ^ y) & low
	return x ^ t<<shift, y ^ t
}
