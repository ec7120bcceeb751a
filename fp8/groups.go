package fp8

import (
	"fmt"
	"math"
)

// Coding is how the codes of a [Groups] lie in memory and which numbers they are.
type Coding uint8

// The codings.
const (
	Nibbles     Coding = iota + 1 // two codes of 4 bits in a byte, the low nibble first
	HighNibbles                   // two codes of 4 bits in a byte, the high nibble first
	LowBytes                      // a code of 4 bits in the low nibble of each byte
	Int8                          // two's complement
	Uint8                         // whole numbers from 0 to 255
	Offset8                       // whole numbers from -128 to 127, stored 128 higher
)

// paired reports whether a byte has two codes.
func (c Coding) paired() bool { return c <= HighNibbles }

// tabled reports whether the numbers of the codes are in Groups.Values.
func (c Coding) tabled() bool { return c <= LowBytes }

// size returns the bytes that hold the codes [skip, skip+n).
func (c Coding) size(skip, n int) int {
	if c.paired() {
		return (skip + n + 1) / 2
	}
	return n
}

// Groups is a strided region of rows × cols codes with its grid of scales and zero points.
//
// A row begins Stride bytes after the one before. The scale of element (r, c) is
// Scales[((Row+r)/Block[0])*ScaleStride + (Col+c)/Block[1]], and its zero point has the same place
// in Zeros. Row and Col are the position of the region in the whole tensor. A block of 0 is the
// whole axis.
type Groups struct {
	Coding      Coding
	Values      *[16]float32 // the numbers of codes of 4 bits
	Codes       []byte
	Stride      int
	Skip        int // 1: each row begins with the second code of its first byte; nibbles only
	Rows, Cols  int
	Row, Col    int
	Block       [2]int
	Scales      []float32
	Zeros       []float32 // nil: nothing is subtracted
	ScaleStride int
}

// DequantizeGroups decodes m into dst as BF16, F16 or F32. The rows of dst begin dstStride bytes
// apart. An element is round((number - zero) × scale). The difference and the product are float32
// operations, each rounded to nearest even. Every NaN is the positive quiet NaN.
func DequantizeGroups(dst []byte, dstStride int, out Format, m *Groups) {
	m.check(dst, dstStride, out)
	if m.Rows == 0 || m.Cols == 0 {
		return
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	values, tame := s.valuesOf(m)
	for r := 0; r < m.Rows; {
		n := min(m.Rows-r, remaining(m.Row+r, m.Block[0]))
		b := m.strip(dst[r*dstStride:], dstStride, out, r, n)
		b.values, b.tame = values, tame
		if r == 0 && using == generic && out != F32 {
			s.forget(&b)
		}
		s.decode(&b)
		r += n
	}
}

func (m *Groups) check(dst []byte, dstStride int, out Format) {
	if m.Coding < Nibbles || m.Coding > Offset8 || !isPlain(out) ||
		m.Coding.tabled() && m.Values == nil || m.Skip < 0 || m.Skip > 1 ||
		m.Skip == 1 && !m.Coding.paired() {
		panic(fmt.Sprintf("fp8: cannot dequantize groups of coding %d, skipping %d, to %v",
			m.Coding, m.Skip, out))
	}
	if m.Cols > math.MaxInt/4-1 {
		panic("fp8: the region ends beyond what an int counts")
	}
	width := m.Coding.size(m.Skip, m.Cols)
	checkRows("codes", m.Codes, m.Rows, m.Stride, width)
	checkGrid(m.Rows, m.Cols, m.Row, m.Col, m.Block, m.Scales, m.ScaleStride)
	if m.Zeros != nil {
		checkGrid(m.Rows, m.Cols, m.Row, m.Col, m.Block, m.Zeros, m.ScaleStride)
	}
	checkDst(dst, m.Rows, dstStride, m.Cols*out.Size())
	checkApart(dst[:extent("destination", m.Rows, dstStride, m.Cols*out.Size())],
		m.Codes[:extent("codes", m.Rows, m.Stride, width)])
}

// The numbers of the codes of 8 bits.
var (
	valuesInt8    = table(256, func(c byte) float32 { return float32(int8(c)) })
	valuesUint8   = table(256, func(c byte) float32 { return float32(c) })
	valuesOffset8 = table(256, func(c byte) float32 { return float32(c) - 128 })
)

// valuesOf returns the numbers of all bytes that hold one code, and whether they are tame. Of two
// codes in a byte only the first 16 numbers count.
func (s *scratch) valuesOf(m *Groups) (values *[256]float32, tame bool) {
	switch m.Coding {
	case Int8:
		return valuesInt8, true
	case Uint8:
		return valuesUint8, true
	case Offset8:
		return valuesOffset8, true
	case LowBytes:
		for i := range s.values {
			s.values[i] = m.Values[i&15]
		}
	default:
		copy(s.values[:], m.Values[:])
	}
	return &s.values, areTame(m.Values[:])
}

// sixteen is the number of codes that are decoded together. It is also the number of results that a
// group of codes of 4 bits can have.
const sixteen = 16

// strip is rows of codes that share a row of scales. zeros is nil or a row of zero points. col is
// the position of the first column in the tensor.
type strip struct {
	dst           []byte
	dstStride     int
	out           Format
	coding        Coding
	values        *[256]float32
	tame          bool // the values of codes are tame
	codes         []byte
	stride, skip  int
	rows, cols    int
	col, width    int
	scales, zeros []float32
}

// strip returns the n rows of m from row r.
func (m *Groups) strip(dst []byte, dstStride int, out Format, r, n int) strip {
	at := index(m.Row+r, m.Block[0]) * m.ScaleStride
	b := strip{dst: dst, dstStride: dstStride, out: out, coding: m.Coding,
		codes: m.Codes[r*m.Stride:], stride: m.Stride, skip: m.Skip, rows: n, cols: m.Cols,
		col: m.Col, width: m.Block[1], scales: m.Scales[at:]}
	if m.Zeros != nil {
		b.zeros = m.Zeros[at:]
	}
	if b.width == 0 {
		b.col, b.width = m.Skip, math.MaxInt&^(sixteen-1)
	}
	return b
}

// part returns n columns from column c.
func (b *strip) part(c, n int) strip {
	p := *b
	p.dst, p.col, p.cols = b.dst[c*b.out.Size():], b.col+c, n
	p.codes, p.skip = b.coding.from(b.codes, b.skip+c)
	return p
}

// from returns the codes from code c, and how many of the first byte to skip.
func (c Coding) from(codes []byte, i int) (rest []byte, skip int) {
	if c.paired() {
		return codes[i/2:], i % 2
	}
	return codes[i:], 0
}

// row returns the destination and the codes of row r.
func (b *strip) row(r int) (dst, codes []byte) {
	return b.dst[r*b.dstStride:][:b.cols*b.out.Size()],
		b.codes[r*b.stride:][:b.coding.size(b.skip, b.cols)]
}

// decode decodes whole sixteens of columns by group, and the columns before and after them by
// column. Groups that are not whole sixteens are decoded by column too.
func (s *scratch) decode(b *strip) {
	head := min(b.cols, -b.col&(sixteen-1))
	body := (b.cols - head) &^ (sixteen - 1)
	_, skip := b.coding.from(b.codes, b.skip+head)
	if b.width%sixteen != 0 || b.coding == LowBytes || skip != 0 {
		head, body = b.cols, 0
	}
	if body == b.cols {
		s.byGroups(b)
		return
	}
	left, middle, right := b.part(0, head), b.part(head, body), b.part(head+body, b.cols-head-body)
	s.byColumns(&left)
	s.byGroups(&middle)
	s.byColumns(&right)
}

// byGroups decodes whole sixteens of columns.
func (s *scratch) byGroups(b *strip) {
	if b.cols == 0 {
		return
	}
	g := index(b.col, b.width)
	scales, zeros := b.scales[g:], b.zeros
	if zeros != nil {
		zeros = zeros[g:]
	}
	for r := range b.rows {
		dst, codes := b.row(r)
		s.rowOfGroups(dst, codes, b, remaining(b.col, b.width), scales, zeros)
	}
}

// byColumns decodes with a scale for each column. It decodes whole rows, which is the order of
// memory, unless it has to spread more than maxCols scales.
func (s *scratch) byColumns(b *strip) {
	step := maxCols
	if b.width == 1 {
		step = max(1, b.cols)
	}
	for c := 0; c < b.cols; c += step {
		p := b.part(c, min(step, b.cols-c))
		scales := p.spread(&s.scales, p.scales)
		zeros := p.zeros
		if zeros != nil {
			zeros = p.spread(&s.zeros, zeros)
		}
		s.columns(&p, scales, zeros)
	}
}

// spread returns the value of the grid for each column. It uses buf unless each column has its own.
func (b *strip) spread(buf *[maxCols]float32, grid []float32) []float32 {
	grid = grid[index(b.col, b.width):]
	if b.width == 1 {
		return grid[:b.cols]
	}
	spread(buf[:b.cols], remaining(b.col, b.width), b.width, grid)
	return buf[:b.cols]
}
