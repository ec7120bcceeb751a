package fp8

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// oracleGroups decodes element by element, by the definition.
func oracleGroups(dst []byte, dstStride int, out Format, m *Groups) {
	for r := range m.Rows {
		for c := range m.Cols {
			var sr, sc int
			if m.Block[0] > 0 {
				sr = (m.Row + r) / m.Block[0]
			}
			if m.Block[1] > 0 {
				sc = (m.Col + c) / m.Block[1]
			}
			v := oracleNumber(m, m.Codes[r*m.Stride:], c)
			if m.Zeros != nil {
				v = float32(v - m.Zeros[sr*m.ScaleStride+sc])
			}
			putResult(dst[r*dstStride+c*out.Size():], out,
				float32(v*m.Scales[sr*m.ScaleStride+sc]))
		}
	}
}

func oracleNumber(m *Groups, codes []byte, c int) float32 {
	switch m.Coding {
	case Nibbles:
		return m.Values[codes[(m.Skip+c)/2]>>(4*((m.Skip+c)%2))&15]
	case HighNibbles:
		return m.Values[codes[(m.Skip+c)/2]>>(4-4*((m.Skip+c)%2))&15]
	case LowBytes:
		return m.Values[codes[c]%16]
	case Int8:
		return float32(int8(codes[c]))
	case Uint8:
		return float32(codes[c])
	case Offset8:
		return float32(int(codes[c]) - 128)
	}
	panic("unknown coding")
}

// putResult rounds v. Every NaN is the positive quiet one.
func putResult(dst []byte, out Format, v float32) {
	if v != v {
		v = math.Float32frombits(0x7fc00000)
	}
	switch out {
	case BF16:
		binary.LittleEndian.PutUint16(dst, oracleBF16(v))
	case F16:
		binary.LittleEndian.PutUint16(dst, oracleF16(v))
	default:
		binary.LittleEndian.PutUint32(dst, math.Float32bits(v))
	}
}

var (
	codings = []Coding{Nibbles, HighNibbles, LowBytes, Int8, Uint8, Offset8}
	plain   = []Format{BF16, F16, F32}
)

// The numbers of codes of 4 bits in several formats.
var (
	fourBits = [16]float32{0, .5, 1, 1.5, 2, 3, 4, 6, float32(math.Copysign(0, -1)), -.5, -1, -1.5,
		-2, -3, -4, -6}
	offset4  = [16]float32{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}
	awkward4 = [16]float32{0, float32(math.Copysign(0, -1)), 1, -1, 0x1p-149, -0x1p-126,
		0x1.fffffep-127, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)),
		float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0xffc00001),
		math.Float32frombits(0x7f800001), -0.6961928, 0x1.01p3}
)

var groupWidths = []int{0, 1, 2, 3, 8, 15, 16, 17, 24, 32, 48, 50, 64, 128, 129, 512}

// randomGroups returns a region of a tensor, with a grid that may be larger than needed.
func randomGroups(r *rand.Rand, maxRows, maxCols int) *Groups {
	m := &Groups{Coding: codings[r.IntN(len(codings))], Rows: r.IntN(maxRows + 1),
		Cols: r.IntN(maxCols + 1), Row: r.IntN(300), Col: r.IntN(300)}
	m.Block = [2]int{[]int{0, 1, 1, 1, 7, 32}[r.IntN(6)], groupWidths[r.IntN(len(groupWidths))]}
	if m.Coding <= LowBytes {
		m.Values = []*[16]float32{&fourBits, &offset4, &awkward4}[r.IntN(3)]
	}
	if m.Coding <= HighNibbles {
		m.Skip = m.Col % 2
		if r.IntN(8) == 0 {
			m.Skip = r.IntN(2)
		}
	}
	randomCodes(r, m)
	randomGrid(r, m)
	return m
}

func randomCodes(r *rand.Rand, m *Groups) {
	width := m.Coding.size(m.Skip, m.Cols)
	m.Stride = width + r.IntN(9)
	m.Codes = make([]byte, max(0, (m.Rows-1)*m.Stride)+width)
	for i := range m.Codes {
		m.Codes[i] = byte(r.Uint32())
	}
}

func randomGrid(r *rand.Rand, m *Groups) {
	rows, cols := 1, 1
	if m.Block[0] > 0 {
		rows = ceilDiv(m.Row+m.Rows, m.Block[0])
	}
	if m.Block[1] > 0 {
		cols = ceilDiv(m.Col+m.Cols, m.Block[1])
	}
	m.ScaleStride = cols + r.IntN(3)
	m.Scales = make([]float32, max(1, (rows-1)*m.ScaleStride+cols))
	for i := range m.Scales {
		m.Scales[i] = randomScale(r)
	}
	if r.IntN(2) == 0 {
		return
	}
	m.Zeros = make([]float32, len(m.Scales))
	for i := range m.Zeros {
		m.Zeros[i] = randomZero(r)
	}
}

// randomZero returns a whole number that a zero point can be, or seldom any number.
func randomZero(r *rand.Rand) float32 {
	switch r.IntN(8) {
	case 0:
		return awkwardScales[r.IntN(len(awkwardScales))]
	case 1:
		return math.Float32frombits(r.Uint32())
	}
	return float32(r.IntN(400) - 144)
}

func checkGroups(t *testing.T, m *Groups, out Format, gap int) {
	t.Helper()
	stride := m.Cols*out.Size() + gap
	n := max(0, (m.Rows-1)*stride) + m.Cols*out.Size()
	got, want := bytes.Repeat([]byte{canary}, n+16), bytes.Repeat([]byte{canary}, n+16)
	DequantizeGroups(got[8:8+n], stride, out, m)
	oracleGroups(want[8:8+n], stride, out, m)
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			r, c := (i-8)/max(1, stride), (i-8)%max(1, stride)/out.Size()
			t.Fatalf("coding %d to %v, %d × %d at (%d, %d), skip %d, block %v, zeros %v: byte %d "+
				"(row %d, column %d) is %#02x, want %#02x", m.Coding, out, m.Rows, m.Cols, m.Row,
				m.Col, m.Skip, m.Block, m.Zeros != nil, i-8, r, c, got[i], want[i])
		}
	}
}

func TestGroupsMatchOracle(t *testing.T) {
	for _, seed := range size.Seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			forEachImplementation(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 31))
				for range size.Count(300, 10_000)/thinning + 1 {
					m := randomGroups(r, 12, 600)
					for _, out := range plain {
						checkGroups(t, m, out, r.IntN(5))
					}
				}
			})
		})
	}
}
