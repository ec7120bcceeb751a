package fp8

import (
	"encoding/binary"
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

// tabled reports whether the numbers of the codes are in Groups.Values.
func (c Coding) tabled() bool { return c <= LowBytes }

// size returns the bytes that hold the codes [skip, skip+n).
func (c Coding) size(skip, n int) int {
	if c == Nibbles || c == HighNibbles {
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
	for r := range m.Rows {
		m.rowGeneric(dst[r*dstStride:][:m.Cols*out.Size()], out, r)
	}
}

func (m *Groups) check(dst []byte, dstStride int, out Format) {
	if m.Coding < Nibbles || m.Coding > Offset8 || !isPlain(out) ||
		m.Coding.tabled() && m.Values == nil || m.Skip < 0 || m.Skip > 1 ||
		m.Skip == 1 && m.Coding > HighNibbles {
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

// rowGeneric decodes row r.
func (m *Groups) rowGeneric(dst []byte, out Format, r int) {
	codes := m.Codes[r*m.Stride:]
	at := index(m.Row+r, m.Block[0]) * m.ScaleStride
	for c := range m.Cols {
		i := at + index(m.Col+c, m.Block[1])
		v := m.number(codes, c)
		if m.Zeros != nil {
			v = float32(v - m.Zeros[i])
		}
		store(dst, c, out, float32(v*m.Scales[i]))
	}
}

// number returns the number of the code in column c of a row.
func (m *Groups) number(codes []byte, c int) float32 {
	switch m.Coding {
	case Int8:
		return float32(int8(codes[c]))
	case Uint8:
		return float32(codes[c])
	case Offset8:
		return float32(codes[c]) - 128
	case LowBytes:
		return m.Values[codes[c]&15]
	}
	c += m.Skip
	shift := c % 2 * 4
	if m.Coding == HighNibbles {
		shift ^= 4
	}
	return m.Values[codes[c/2]>>shift&15]
}

// store writes element i of a row.
func store(dst []byte, i int, out Format, v float32) {
	if v != v {
		v = math.Float32frombits(quietF32)
	}
	switch out {
	case F32:
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	case F16:
		binary.LittleEndian.PutUint16(dst[2*i:], RoundF16(v))
	default:
		binary.LittleEndian.PutUint16(dst[2*i:], RoundBF16(v))
	}
}
