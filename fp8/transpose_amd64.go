//go:build !purego

package fp8

import (
	"math"
	"sync"
	"time"
	"unsafe"
)

// tiler transposes tiles of rows × cols bytes. The generated declarations describe the parameters.
type tiler struct {
	rows, cols    int
	plain, stream func(dst *byte, dstStride, dstStep int, src *byte, srcStride, srcStep, n int,
		scratch *byte)
}

var tilers = [...]map[int]*tiler{
	generic: nil,
	avx2: {
		1: {64, 32, transposeTiles1AVX2, streamTiles1AVX2},
		2: {64, 32, transposeTiles2AVX2, streamTiles2AVX2},
	},
	avx512: {
		1: {64, 64, transposeTiles1AVX512, streamTiles1AVX512},
		2: {64, 64, transposeTiles2AVX512, streamTiles2AVX512},
		4: {64, 64, transposeTiles4AVX512, streamTiles4AVX512},
		8: {64, 64, transposeTiles8AVX512, streamTiles8AVX512},
	},
}

const (
	// stripTiles is the number of rows of tiles before the next column of tiles. So the destination
	// is written in runs of several lines, and each of its pages is visited once. This is half as
	// fast again as following the rows.
	stripTiles = 8

	// streamBytes is the size from which results bypass the caches, because they would not stay
	// there. This writes a tenth faster.
	streamBytes = 1 << 20
)

func transpose(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	t := tilers[transposing(size)][size]
	if t == nil {
		transposeGeneric(dst, dstStride, src, srcStride, rows, cols, size)
		return
	}
	t.transpose(dst, dstStride, src, srcStride, rows, cols, size)
}

// pinned says that no kernel of another set runs, even if it is faster. Tests and benchmarks of one
// set need that.
var pinned bool

// transposing returns the set whose kernels transpose elements of a size. AVX-512 is not the faster
// one on every processor that has it.
func transposing(size int) implementation {
	if using != avx512 || pinned || size > 2 {
		return using
	}
	return faster[size]()
}

var faster = [...]func() implementation{
	1: sync.OnceValue(func() implementation { return fasterTiler(1) }),
	2: sync.OnceValue(func() implementation { return fasterTiler(2) }),
}

const (
	trialSide = 1024 // of the matrix that is transposed for a trial, in elements
	trials    = 7
)

// fasterTiler tries the kernels in turn, and compares the shortest times of each. It takes one or
// two milliseconds.
func fasterTiler(size int) implementation {
	const n = trialSide * trialSide
	src, dst := make([]byte, n*size), make([]byte, n*size)
	least := [...]time.Duration{avx2: math.MaxInt64, avx512: math.MaxInt64}
	for range trials {
		for i := avx2; i <= avx512; i++ {
			begun := time.Now()
			tilers[i][size].transpose(dst, trialSide*size, src, trialSide*size, trialSide,
				trialSide, size)
			least[i] = min(least[i], time.Since(begun))
		}
	}
	if least[avx2] < least[avx512] {
		return avx2
	}
	return avx512
}

func (t *tiler) transpose(dst []byte, dstStride int, src []byte, srcStride, rows, cols, size int) {
	s := tileScratches.Get().(*tileScratch)
	defer tileScratches.Put(s)
	kernel := t.plain
	if rows*cols*size >= streamBytes && uintptr(unsafe.Pointer(&dst[0]))%64 == 0 &&
		dstStride%64 == 0 {
		kernel = t.stream
	}
	tileRows, tileCols := t.rows/size, t.cols/size
	wholeRows, wholeCols := rows-rows%tileRows, cols-cols%tileCols
	for r := 0; r < wholeRows; r += stripTiles * tileRows {
		n := min(stripTiles, (wholeRows-r)/tileRows)
		for c := 0; c < wholeCols; c += tileCols {
			kernel(&dst[c*dstStride+r*size], dstStride, t.rows, &src[r*srcStride+c*size], srcStride,
				srcStride*tileRows, n, &s.lanes[0])
		}
	}
	s.edges(t, dst, dstStride, src, srcStride, rows, cols, size)
}

// edges transposes the partial tiles at the bottom and at the right.
func (s *tileScratch) edges(t *tiler, dst []byte, dstStride int, src []byte, srcStride int,
	rows, cols, size int) {
	tileRows, tileCols := t.rows/size, t.cols/size
	wholeRows, wholeCols := rows-rows%tileRows, cols-cols%tileCols
	for r := 0; r < rows; r += tileRows {
		c := wholeCols
		if r == wholeRows {
			c = 0
		}
		for ; c < cols; c += tileCols {
			s.edge(t, dst[c*dstStride+r*size:], dstStride, src[r*srcStride+c*size:], srcStride,
				min(tileRows, rows-r), min(tileCols, cols-c), size)
		}
	}
}

// tileScratch is the working memory for tiles.
type tileScratch struct {
	lanes, from, to [tile * tile]byte
}

var tileScratches = sync.Pool{New: func() any { return new(tileScratch) }}

// edge transposes a partial tile by way of a whole one.
func (s *tileScratch) edge(t *tiler, dst []byte, dstStride int, src []byte, srcStride int,
	rows, cols, size int) {
	for r := range rows {
		copy(s.from[r*tile:][:cols*size], src[r*srcStride:])
	}
	t.plain(&s.to[0], tile, 0, &s.from[0], tile, 0, 1, &s.lanes[0])
	for c := range cols {
		copy(dst[c*dstStride:][:rows*size], s.to[c*tile:])
	}
}
