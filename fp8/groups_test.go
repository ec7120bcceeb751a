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
	offset4 = [16]float32{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}
	normal4 = [16]float32{-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343,
		-0.09105004, 0, 0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617,
		0.72295684, 1}
	awkward4 = [16]float32{0, float32(math.Copysign(0, -1)), 1, -1, 0x1p-149, -0x1p-126,
		0x1.fffffep-127, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)),
		float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0xffc00001),
		math.Float32frombits(0x7f800001), -0.6961928, 0x1.01p3}
)

var tables4 = []*[16]float32{&fourBits, &offset4, &normal4, &awkward4}

var groupWidths = []int{0, 1, 2, 3, 8, 15, 16, 17, 24, 32, 48, 50, 64, 128, 129, 512}

// randomGroups returns a region of a tensor, with a grid that may be larger than needed.
func randomGroups(r *rand.Rand, maxRows, maxCols int) *Groups {
	m := &Groups{Coding: codings[r.IntN(len(codings))], Rows: r.IntN(maxRows + 1),
		Cols: r.IntN(maxCols + 1), Row: r.IntN(300), Col: r.IntN(300)}
	m.Block = [2]int{[]int{0, 1, 1, 1, 7, 32}[r.IntN(6)], groupWidths[r.IntN(len(groupWidths))]}
	if m.Coding <= LowBytes {
		m.Values = tables4[r.IntN(4)]
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

// TestGroupsOfEveryCodeAndScale combines each code, each awkward scale and each awkward zero point.
func TestGroupsOfEveryCodeAndScale(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		for _, coding := range codings {
			for _, values := range tables4 {
				if coding > LowBytes && values != &fourBits {
					continue // the numbers of codes of 8 bits are fixed
				}
				for i := 0; i < len(awkwardScales); i += thinning {
					everyGroup(t, coding, values, awkwardScales[i])
				}
			}
		}
	})
}

// everyGroup decodes all codes by group and by column. Each group has another zero point.
func everyGroup(t *testing.T, coding Coding, values *[16]float32, scale float32) {
	t.Helper()
	cols := coding.columns(256)
	codes := make([]byte, 256)
	for i := range codes {
		codes[i] = byte(i)
	}
	zeros := append([]float32{8, -7, 0x1p126, 0x1p127, 256}, awkwardScales...)
	scales := make([]float32, len(zeros))
	for i := range scales {
		scales[i] = scale
	}
	for _, width := range []int{0, 256, 255} {
		m := &Groups{Coding: coding, Values: values, Codes: codes, Rows: len(zeros), Cols: cols,
			Block: [2]int{1, width}, Scales: scales, Zeros: zeros, ScaleStride: 1}
		if width > 0 {
			m.Rows, m.ScaleStride = len(zeros)/3, 3 // at most three groups in a row
		}
		for _, out := range plain {
			checkGroups(t, m, out, 0)
			one := *m
			one.Rows, one.Zeros = 1, nil
			checkGroups(t, &one, out, 0)
		}
	}
}

// columns returns the number of codes in n bytes.
func (c Coding) columns(n int) int {
	if c == Nibbles || c == HighNibbles {
		return 2 * n
	}
	return n
}

// TestGroupsOfEveryLength has each length, skip and offset in a group.
func TestGroupsOfEveryLength(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(33, 34))
		for _, coding := range codings {
			for n := range 140 {
				m := &Groups{Coding: coding, Values: &offset4, Rows: 3, Cols: n, Row: r.IntN(4),
					Col: r.IntN(70), Block: [2]int{2, []int{16, 32, 64, 1, 24}[n%5]}}
				if coding <= HighNibbles {
					m.Skip = r.IntN(2)
				}
				randomCodes(r, m)
				randomGrid(r, m)
				for _, out := range plain {
					checkGroups(t, m, out, r.IntN(5))
				}
			}
		}
	})
}

// TestGroupsOfWideRows has more columns than are prepared at once, and rows that share scales.
func TestGroupsOfWideRows(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(35, 36))
		for i, coding := range codings {
			for j, block := range [][2]int{{1, 16}, {1, 0}, {0, 0}, {40, 1}, {40, 32}, {40, 50}} {
				m := &Groups{Coding: coding, Values: &fourBits, Rows: 34, Cols: 4096 + 77, Row: 3,
					Col: 5, Block: block}
				if coding <= HighNibbles {
					m.Skip = 1
				}
				randomCodes(r, m)
				randomGrid(r, m)
				checkGroups(t, m, plain[(i+j)%3], 1)
			}
		}
	})
}

// TestGroupsOfAnyRange checks that a region decodes as the same region of the whole.
func TestGroupsOfAnyRange(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(37, 38))
		for range 40 {
			m := randomGroups(r, 40, 400)
			whole := make([]byte, m.Rows*m.Cols*2)
			DequantizeGroups(whole, m.Cols*2, BF16, m)
			for range 10 {
				checkGroupsRegion(t, r, m, whole)
			}
		}
	})
}

func checkGroupsRegion(t *testing.T, r *rand.Rand, m *Groups, whole []byte) {
	t.Helper()
	r0, c0 := r.IntN(m.Rows+1), r.IntN(m.Cols+1)
	part := *m
	part.Row, part.Col = m.Row+r0, m.Col+c0
	part.Rows, part.Cols = r.IntN(m.Rows-r0+1), r.IntN(m.Cols-c0+1)
	at := c0
	if m.Coding <= HighNibbles {
		at, part.Skip = (m.Skip+c0)/2, (m.Skip+c0)%2
	}
	if part.Rows > 0 && part.Cols > 0 {
		part.Codes = m.Codes[r0*m.Stride+at:]
	}
	got := make([]byte, part.Rows*part.Cols*2)
	DequantizeGroups(got, part.Cols*2, BF16, &part)
	for i := range part.Rows {
		want := whole[((r0+i)*m.Cols+c0)*2:][:part.Cols*2]
		if !bytes.Equal(got[i*part.Cols*2:][:part.Cols*2], want) {
			t.Fatalf("coding %d, rows %d+%d, columns %d+%d: row %d differs from that of the whole",
				m.Coding, r0, part.Rows, c0, part.Cols, i)
		}
	}
}

// TestGroupsOfUnusualNumbers has exact results, so that the oracle is not the only judge.
func TestGroupsOfUnusualNumbers(t *testing.T) {
	inf, zero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	values := [16]float32{0, zero, inf, -inf, float32(math.NaN()),
		math.Float32frombits(0xff800001), -1, 1}
	forEachImplementation(t, func(t *testing.T) {
		for _, c := range []struct {
			scale float32
			zeros []float32
			want  [8]uint16
		}{
			{1, nil, [8]uint16{0, 0x8000, 0x7f80, 0xff80, 0x7fc0, 0x7fc0, 0xbf80, 0x3f80}},
			{-1, nil, [8]uint16{0x8000, 0, 0xff80, 0x7f80, 0x7fc0, 0x7fc0, 0x3f80, 0xbf80}},
			{0, nil, [8]uint16{0, 0x8000, 0x7fc0, 0x7fc0, 0x7fc0, 0x7fc0, 0x8000, 0}},
			{1, []float32{inf}, [8]uint16{0xff80, 0xff80, 0x7fc0, 0xff80, 0x7fc0, 0x7fc0, 0xff80, 0xff80}},
			{-2, []float32{1}, [8]uint16{0x4000, 0x4000, 0xff80, 0x7f80, 0x7fc0, 0x7fc0, 0x4080, 0x8000}},
			{0x1p-133, nil, [8]uint16{0, 0x8000, 0x7f80, 0xff80, 0x7fc0, 0x7fc0, 0x8001, 0x0001}},
			{0x1p127, []float32{-3}, [8]uint16{0x7f80, 0x7f80, 0x7f80, 0xff80, 0x7fc0, 0x7fc0, 0x7f80, 0x7f80}},
		} {
			for _, width := range []int{16, 3} {
				checkUnusual(t, &values, c.scale, c.zeros, c.want, width)
			}
		}
	})
}

func checkUnusual(t *testing.T, values *[16]float32, scale float32, zeros []float32,
	want [8]uint16, width int) {
	t.Helper()
	m := &Groups{Coding: Nibbles, Values: values, Codes: make([]byte, 16), Rows: 1, Cols: 32,
		Block: [2]int{0, width}, Scales: make([]float32, 32)}
	for i := range m.Codes {
		m.Codes[i] = byte(2*i%8 | (2*i%8+1)<<4)
	}
	for i := range m.Scales {
		m.Scales[i] = scale
	}
	if zeros != nil {
		m.Zeros = make([]float32, 32)
		for i := range m.Zeros {
			m.Zeros[i] = zeros[0]
		}
	}
	dst := make([]byte, 64)
	DequantizeGroups(dst, 64, BF16, m)
	for i := range 32 {
		if got := wordAt(dst, i); got != want[i%8] {
			t.Errorf("(%v - %v) × %v in groups of %d is %#04x, want %#04x", values[i%8], zeros,
				scale, width, got, want[i%8])
		}
	}
}

func TestGroupsCheckTheirContract(t *testing.T) {
	good := Groups{Coding: Nibbles, Values: &fourBits, Codes: make([]byte, 64), Stride: 8, Rows: 8,
		Cols: 15, Skip: 1, Block: [2]int{4, 8}, Scales: make([]float32, 4), ScaleStride: 2,
		Zeros: make([]float32, 4)}
	dst := make([]byte, 8*30)
	DequantizeGroups(dst, 30, BF16, &good)
	for want, broken := range map[string]func(m *Groups){
		"coding 0":            func(m *Groups) { m.Coding = 0 },
		"coding 7":            func(m *Groups) { m.Coding = 7 },
		"skipping 2":          func(m *Groups) { m.Skip = 2 },
		"skipping -1":         func(m *Groups) { m.Skip = -1 },
		"coding 4, skipping":  func(m *Groups) { m.Coding = Int8 },
		"coding 1, skipping":  func(m *Groups) { m.Values = nil },
		"codes":               func(m *Groups) { m.Codes = m.Codes[:63] },
		"codes: 8 rows of 9":  func(m *Groups) { m.Cols = 16 },
		"9 bytes apart":       func(m *Groups) { m.Stride = 9 },
		"negative rows":       func(m *Groups) { m.Rows = -1 },
		"negative origin":     func(m *Groups) { m.Row = -1 },
		"(0, -1)":             func(m *Groups) { m.Col = -1 },
		"[-1 8]":              func(m *Groups) { m.Block[0] = -1 },
		"scales: a grid of 3": func(m *Groups) { m.Row = 1 },
		"grid of 2 × 2":       func(m *Groups) { m.Zeros = m.Zeros[:3] },
		"scales: a grid of 2": func(m *Groups) { m.ScaleStride = 3 },
		"beyond":              func(m *Groups) { m.Col = math.MaxInt - 3 },
		"counts":              func(m *Groups) { m.Cols = math.MaxInt },
	} {
		m := good
		broken(&m)
		mustPanic(t, want, func() { DequantizeGroups(dst, 30, BF16, &m) })
	}
	mustPanic(t, "destination", func() { DequantizeGroups(dst[:239], 30, BF16, &good) })
	mustPanic(t, "destination", func() { DequantizeGroups(dst, 30, F32, &good) })
	mustPanic(t, "rows of 30 bytes overlap", func() { DequantizeGroups(dst, 29, BF16, &good) })
	mustPanic(t, "to E8M0", func() { DequantizeGroups(dst, 30, E8M0, &good) })
	overlapping := good
	overlapping.Codes = dst[100:]
	mustPanic(t, "overlap", func() { DequantizeGroups(dst, 30, BF16, &overlapping) })
}

func TestGroupsAllocateNothing(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(39, 40))
		m := randomGroups(r, 0, 0)
		m.Coding, m.Values, m.Skip = Nibbles, &offset4, 0
		m.Rows, m.Cols, m.Block = 40, 500, [2]int{1, 32}
		randomCodes(r, m)
		randomGrid(r, m)
		dst := make([]byte, m.Rows*m.Cols*4)
		for _, out := range plain {
			n := testing.AllocsPerRun(50, func() { DequantizeGroups(dst, 4*m.Cols, out, m) })
			if n > 0 && thinning == 1 { // the race detector empties pools at random
				t.Errorf("to %v: %v allocations", out, n)
			}
		}
	})
}

func FuzzDequantizeGroups(f *testing.F) {
	f.Add(uint64(1), byte(0))
	f.Add(uint64(2), byte(1))
	f.Fuzz(func(t *testing.T, seed uint64, out byte) {
		r := rand.New(rand.NewPCG(seed, 0))
		checkGroups(t, randomGroups(r, 20, 300), plain[out%3], r.IntN(5))
	})
}
