package fp8

import (
	"fmt"
	"math"
	"sync"
)

// Matrix is a strided 2-D region of rows × cols codes with its grid of scales.
//
// Element (r, c) is Codes[r*Stride+c]. Its scale is Scales[((Row+r)/Block[0])*ScaleStride +
// (Col+c)/Block[1]]. Row and Col are the position of the region in the whole tensor. A block of 0
// is the whole axis.
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

// Dequantize decodes m into dst as BF16, F16 or F32. The rows of dst begin dstStride bytes apart.
// The package comment describes the arithmetic and the contract.
func Dequantize(dst []byte, dstStride int, out Format, m *Matrix) {
	m.check(dst, dstStride, out)
	if m.Rows == 0 || m.Cols == 0 {
		return
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.powers = [maxTables]float32{}
	for r := 0; r < m.Rows; {
		n := min(m.Rows-r, remaining(m.Row+r, m.Block[0]))
		s.band(dst[r*dstStride:], dstStride, out, m, r, n)
		r += n
	}
}

func (m *Matrix) check(dst []byte, dstStride int, out Format) {
	if m.Format != E4M3FN && m.Format != E5M2 || !isPlain(out) {
		panic(fmt.Sprintf("fp8: cannot dequantize %v to %v", m.Format, out))
	}
	checkRows("codes", m.Codes, m.Rows, m.Stride, m.Cols)
	if m.Cols > math.MaxInt/4 {
		panic("fp8: the region ends beyond what an int counts")
	}
	checkGrid(m.Rows, m.Cols, m.Row, m.Col, m.Block, m.Scales, m.ScaleStride)
	checkDst(dst, m.Rows, dstStride, m.Cols*out.Size())
	checkApart(dst[:extent("destination", m.Rows, dstStride, m.Cols*out.Size())],
		m.Codes[:extent("codes", m.Rows, m.Stride, m.Cols)])
}

// index returns the block that contains position i. A block of 0 is the whole axis.
func index(i, block int) int {
	if block == 0 {
		return 0
	}
	return i / block
}

// remaining returns the number of positions from i to the end of its block.
func remaining(i, block int) int {
	if block == 0 {
		return math.MaxInt
	}
	return block - i%block
}

const (
	maxTables = 64   // tables that are built at once: 8192 columns in blocks of 128
	maxCols   = 4096 // columns whose scales are spread out at once
)

// scratch is the working memory for a band of rows that share their scales.
type scratch struct {
	words  [maxTables * 256]uint16
	scales [maxCols]float32
	zeros  [maxCols]float32
	maxima [maxCols]uint32
	values [256]float32
	codes  [tableCols]byte
	powers [maxTables]float32 // the scales of the tables in words, if they are powers of two
	memory
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// band decodes the n rows of m from row r, which share a row of scales, into dst.
func (s *scratch) band(dst []byte, dstStride int, out Format, m *Matrix, r, n int) {
	scales := m.Scales[index(m.Row+r, m.Block[0])*m.ScaleStride:]
	codes := m.Codes[r*m.Stride:]
	width := m.Block[1]
	if width == 0 {
		width = m.Col + m.Cols
	}
	for c := 0; c < m.Cols; {
		b := band{dst[c*out.Size():], dstStride, out, m.Format, codes[c:], m.Stride, n, m.Cols - c}
		first, done := remaining(m.Col+c, width), 0
		if out.Size() == 2 {
			done = s.byTable(&b, first, width, scales[(m.Col+c)/width:])
			if done == 0 && using == generic {
				done = s.byPowers(&b, first, width, scales[(m.Col+c)/width:])
			}
		}
		if done == 0 {
			done = s.byColumn(&b, first, width, scales[(m.Col+c)/width:])
		}
		c += done
	}
}

// band is rows of codes that share a row of scales.
type band struct {
	dst        []byte
	dstStride  int
	out        Format
	format     Format
	codes      []byte
	stride     int
	rows, cols int
}

// uses returns how many codes share a scale. A table does not pay for a few codes.
func (b *band) uses(width int) int { return b.rows * min(width, b.cols) }

// tables is the contents of the tables of a scratch, for each block.
type tables uint8

const (
	noTables        tables = iota // nothing: multiply
	wordTables                    // 256 words, one for each code
	magnitudeTables               // 128 words, for the codes without sign
	eightTables                   // the bytes of 16 words, for the significands
)

// byTable decodes at most maxTables blocks with a table for each scale. The first block has first
// columns. It returns the number of columns, or 0 if multiplication is better.
func (s *scratch) byTable(b *band, first, width int, scales []float32) int {
	cols, n := b.cols, 1
	if cols > first {
		n = min(maxTables, 1+ceilDiv(cols-first, width))
		cols = min(cols, first+(n-1)*width)
	}
	t := s.fillTables(b, width, scales[:n])
	if t == noTables {
		return 0
	}
	for r := range b.rows {
		s.rowByTable(b.dst[r*b.dstStride:][:2*cols], b.codes[r*b.stride:][:cols], first, width, t)
	}
	return cols
}

// byColumn decodes at most maxCols columns by multiplication and returns their number.
func (s *scratch) byColumn(b *band, first, width int, scales []float32) int {
	cols := min(b.cols, maxCols)
	spread(s.scales[:cols], first, width, scales)
	for r := range b.rows {
		dst, codes := b.dst[r*b.dstStride:][:b.out.Size()*cols], b.codes[r*b.stride:][:cols]
		rowByColumn(dst, b.out, codes, b.format, s.scales[:cols])
	}
	return cols
}

// spread writes to each column the scale of its block.
func spread(dst []float32, first, width int, scales []float32) {
	for i := 0; len(dst) > 0; i++ {
		n, scale := min(first, len(dst)), scales[i]
		for j := range dst[:n] {
			dst[j] = scale
		}
		dst, first = dst[n:], width
	}
}
