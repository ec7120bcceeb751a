package fp8

import (
	"fmt"
	"math"
)

// Plain is a strided 2-D region of rows × cols plain values, with the grid of scales of its blocks.
//
// Element (r, c) is at Data[r*Stride+c*Format.Size()]. The other fields have the same meaning as in
// [Matrix].
type Plain struct {
	Format      Format // BF16, F16 or F32
	Data        []byte
	Stride      int // bytes between rows
	Rows, Cols  int
	Row, Col    int
	Block       [2]int
	Scales      []float32
	ScaleStride int
}

const (
	maxE4M3FN = 448      // the largest finite code, 0x7E
	minScale  = 0x1p-126 // the smallest normal float32
)

// ScaleFor returns the scale of a block with largest magnitude amax: max(amax/448, 2^-126) in
// float32. The scale of a block of zeros is 2^-126 too.
func ScaleFor(amax float32) float32 { return max(amax/maxE4M3FN, minScale) }

// Amax returns the largest finite magnitude of the first n values of src, or 0 if there is none.
// NaN and infinities are ignored, because one of them would ruin the codes of its block.
// It panics unless from is BF16, F16 or F32 and src has n values.
func Amax(src []byte, from Format, n int) float32 {
	if !isPlain(from) || n < 0 || n > len(src)/from.Size() {
		panic(fmt.Sprintf("fp8: %d bytes are not %d values of format %v", len(src), n, from))
	}
	p := Plain{Format: from, Data: src, Rows: 1, Cols: n, Scales: make([]float32, 1)}
	if n == 0 {
		return 0
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.amaxBand(&p, 0, 1, p.Scales)
	return p.Scales[0]
}

// BlockScales sets m.Scales to [ScaleFor] the [Amax] of each block of the region. The region must
// begin with a block. A partial block at its end gets the scale of its part. A call that breaks
// this panics.
func BlockScales(m *Plain) {
	m.check()
	if m.Row != 0 && (m.Block[0] == 0 || m.Row%m.Block[0] != 0) ||
		m.Col != 0 && (m.Block[1] == 0 || m.Col%m.Block[1] != 0) {
		panic(fmt.Sprintf("fp8: the region begins at (%d, %d), inside a block of %v",
			m.Row, m.Col, m.Block))
	}
	if m.Rows == 0 || m.Cols == 0 {
		return
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for r := 0; r < m.Rows; {
		n := min(m.Rows-r, remaining(m.Row+r, m.Block[0]))
		grid := m.Scales[index(m.Row+r, m.Block[0])*m.ScaleStride+index(m.Col, m.Block[1]):]
		grid = grid[:index(m.Col+m.Cols-1, m.Block[1])-index(m.Col, m.Block[1])+1]
		s.amaxBand(m, r, n, grid)
		for i, amax := range grid {
			grid[i] = ScaleFor(amax)
		}
		r += n
	}
}

// Quantize writes the E4M3FN code nearest to value/scale for each value of m. The rows of codes
// begin stride bytes apart. The quotient is one IEEE float32 division, rounded to nearest even.
//
// Magnitudes beyond 448, and infinities, become 448. NaN becomes NaN with its sign. Quantize
// returns the number of saturated values. Their quotient is beyond 464, from where 448 is not the
// nearest multiple. With the scales of [BlockScales], only infinities saturate.
func Quantize(codes []byte, stride int, m *Plain) (saturated int) {
	m.check()
	checkDst(codes, m.Rows, stride, m.Cols)
	if m.Rows == 0 || m.Cols == 0 {
		return 0
	}
	checkApart(codes[:extent("codes", m.Rows, stride, m.Cols)],
		m.Data[:extent("values", m.Rows, m.Stride, m.Cols*m.Format.Size())])
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for r := 0; r < m.Rows; {
		n := min(m.Rows-r, remaining(m.Row+r, m.Block[0]))
		saturated += s.quantizeBand(codes[r*stride:], stride, m, r, n)
		r += n
	}
	return saturated
}

func (m *Plain) check() {
	if !isPlain(m.Format) {
		panic(fmt.Sprintf("fp8: cannot quantize %v", m.Format))
	}
	if m.Cols > math.MaxInt/4 {
		panic("fp8: the region ends beyond what an int counts")
	}
	checkRows("values", m.Data, m.Rows, m.Stride, m.Cols*m.Format.Size())
	checkGrid(m.Rows, m.Cols, m.Row, m.Col, m.Block, m.Scales, m.ScaleStride)
}

// width returns the number of columns of a block.
func (m *Plain) width() int {
	if m.Block[1] == 0 {
		return m.Col + m.Cols
	}
	return m.Block[1]
}

// amaxBand sets amax to the largest magnitude of each block in n rows from row r. It first finds
// the maximum of each column, row by row in the order of memory, and then joins the columns of each
// block.
func (s *scratch) amaxBand(m *Plain, r, n int, amax []float32) {
	clear(amax)
	size, width := m.Format.Size(), m.width()
	for c := 0; c < m.Cols; c += maxCols {
		acc := s.maxima[:min(maxCols, m.Cols-c)]
		clear(acc)
		for i := range n {
			maxAbs(acc, m.Data[(r+i)*m.Stride+c*size:], m.Format)
		}
		for i, a := range acc {
			b := &amax[(m.Col%width+c+i)/width]
			*b = max(*b, math.Float32frombits(a))
		}
	}
}

func (s *scratch) quantizeBand(codes []byte, stride int, m *Plain, r, n int) (saturated int) {
	size, width := m.Format.Size(), m.width()
	grid := m.Scales[index(m.Row+r, m.Block[0])*m.ScaleStride:]
	for c := 0; c < m.Cols; c += maxCols {
		scales := s.scales[:min(maxCols, m.Cols-c)]
		spread(scales, remaining(m.Col+c, width), width, grid[(m.Col+c)/width:])
		for i := range n {
			saturated += quantizeRow(codes[i*stride+c:][:len(scales)],
				m.Data[(r+i)*m.Stride+c*size:], m.Format, scales)
		}
	}
	return saturated
}

// RoundE4M3FN returns the nearest code, ties to even. Magnitudes beyond 448, and infinities, give
// ±448. NaN gives NaN with its sign.
func RoundE4M3FN(f float32) byte {
	const step = 0x46800000 // 2^14; its last place is 2^-9, the step of the subnormals of E4M3FN
	u := math.Float32bits(f)
	sign := byte(u >> 24 & 0x80)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7f
	case u >= 0x43e00000: // 448
		return sign | 0x7e
	case u < 0x3c800000: // 2^-6
		return sign | byte(math.Float32bits(math.Float32frombits(u)+0x1p14)-step)
	}
	return sign | byte((u-120<<23+0x7ffff+u>>20&1)>>20)
}

// quantizeRowGeneric writes the codes of len(codes) values of src.
func quantizeRowGeneric(codes, src []byte, from Format, scales []float32) (saturated int) {
	var values [chunk]float32
	for len(codes) > 0 {
		v := values[:min(len(codes), chunk)]
		loadFloats(v, src, from)
		for i, f := range v {
			q := float32(f / scales[i])
			// beyond 464, but not NaN
			if math.Float32bits(q)&0x7fffffff-0x43e80001 < 0x7f800001-0x43e80001 {
				saturated++
			}
			codes[i] = RoundE4M3FN(q)
		}
		codes, src, scales = codes[len(v):], src[len(v)*from.Size():], scales[len(v):]
	}
	return saturated
}

// maxAbsGeneric raises each element of acc to the magnitude of the value in its column, if that is
// finite. acc holds the bits of float32s.
func maxAbsGeneric(acc []uint32, src []byte, from Format) {
	var values [chunk]float32
	for len(acc) > 0 {
		v := values[:min(len(acc), chunk)]
		loadFloats(v, src, from)
		for i, f := range v {
			if u := math.Float32bits(f) & 0x7fffffff; u < 0x7f800000 {
				acc[i] = max(acc[i], u)
			}
		}
		acc, src = acc[len(v):], src[len(v)*from.Size():]
	}
}
