package fp8

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"
)

// extent returns the number of bytes from the first row to the end of the last. The rows begin
// stride bytes apart and are width bytes wide. It panics if the arguments break the contract,
// because assembly relies on them.
func extent(what string, rows, stride, width int) int {
	if rows < 0 || stride < 0 || width < 0 {
		panic(fmt.Sprintf("fp8: %s: negative rows, stride or width: %d, %d, %d",
			what, rows, stride, width))
	}
	if rows == 0 || width == 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(rows-1), uint64(stride))
	n, carry := bits.Add64(lo, uint64(width), 0)
	if hi != 0 || carry != 0 || n > 1<<(bits.UintSize-2) {
		panic(fmt.Sprintf("fp8: %s: %d rows, %d bytes apart, are more than memory holds",
			what, rows, stride))
	}
	return int(n)
}

// checkRows panics unless b holds rows of width bytes, stride bytes apart.
func checkRows(what string, b []byte, rows, stride, width int) {
	if n := extent(what, rows, stride, width); n > len(b) {
		panic(fmt.Sprintf("fp8: %s: %d rows of %d bytes, %d bytes apart, need %d bytes, have %d",
			what, rows, width, stride, n, len(b)))
	}
}

// checkDst is checkRows for the destination, whose rows must not overlap.
func checkDst(b []byte, rows, stride, width int) {
	if rows > 1 && stride < width {
		panic(fmt.Sprintf("fp8: destination: rows of %d bytes overlap when %d bytes apart",
			width, stride))
	}
	checkRows("destination", b, rows, stride, width)
}

// checkApart panics if dst and src overlap in memory.
func checkApart(dst, src []byte) {
	if len(dst) == 0 || len(src) == 0 {
		return
	}
	d, s := uintptr(unsafe.Pointer(&dst[0])), uintptr(unsafe.Pointer(&src[0]))
	if d < s+uintptr(len(src)) && s < d+uintptr(len(dst)) {
		panic("fp8: destination and source overlap")
	}
}

// checkGrid panics unless scales holds the grid that a region of rows × cols at (row, col) needs.
func checkGrid(rows, cols, row, col int, block [2]int, scales []float32, stride int) {
	if row < 0 || col < 0 || block[0] < 0 || block[1] < 0 || stride < 0 {
		panic(fmt.Sprintf("fp8: negative origin, block or stride of scales: (%d, %d), %v, %d",
			row, col, block, stride))
	}
	if row > math.MaxInt-rows || col > math.MaxInt-cols {
		panic("fp8: the region ends beyond what an int counts")
	}
	if rows == 0 || cols == 0 {
		return
	}
	rows, cols = index(row+rows-1, block[0])+1, index(col+cols-1, block[1])+1
	if n := extent("scales", rows, stride, cols); n > len(scales) {
		panic(fmt.Sprintf("fp8: scales: a grid of %d × %d, %d apart, needs %d, have %d",
			rows, cols, stride, n, len(scales)))
	}
}
