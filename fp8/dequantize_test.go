package fp8

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// canary fills the bytes around results.
const canary = 0xab

// oracleDequantize decodes element by element, by the definition.
func oracleDequantize(dst []byte, dstStride int, out Format, m *Matrix) {
	for r := range m.Rows {
		for c := range m.Cols {
			var sr, sc int
			if m.Block[0] > 0 {
				sr = (m.Row + r) / m.Block[0]
			}
			if m.Block[1] > 0 {
				sc = (m.Col + c) / m.Block[1]
			}
			code := m.Codes[r*m.Stride+c]
			putProduct(dst[r*dstStride+c*out.Size():], out, m.Format, code,
				m.Scales[sr*m.ScaleStride+sc])
		}
	}
}

// putProduct writes round(code × scale). NaNs are quiet and have the sign of the code.
func putProduct(dst []byte, out, f Format, code byte, scale float32) {
	v := float32(f.Values()[code] * scale)
	if v != v {
		v = math.Float32frombits(0x7fc00000 | uint32(code&0x80)<<24)
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

// awkwardScales are one or more scales of each class.
var awkwardScales = []float32{1, 0, -1, 0x1p-149, -0x1.8p-130, 0x1p-126, 0x1p-121, 1.7e-5,
	3.0517578e-5, -0.01, 0.3333333, 1.9999999, 3e4, 0x1p112, 0x1.ffffp118, 0x1p119, 0x1p120,
	7.6e35, math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	math.Float32frombits(0xff800001), float32(math.Copysign(0, -1))}

func randomScale(r *rand.Rand) float32 {
	switch r.IntN(4) {
	case 0:
		return awkwardScales[r.IntN(len(awkwardScales))]
	case 1:
		return math.Float32frombits(r.Uint32())
	}
	return float32(math.Ldexp(r.Float64()+0.5, -r.IntN(20)))
}

// randomMatrix returns a region of a tensor, with a grid that may be larger than needed.
func randomMatrix(r *rand.Rand, maxRows, maxCols int) *Matrix {
	m := &Matrix{Format: []Format{E4M3FN, E4M3FN, E5M2}[r.IntN(3)], Rows: r.IntN(maxRows + 1),
		Cols: r.IntN(maxCols + 1), Row: r.IntN(300), Col: r.IntN(300)}
	m.Block = [2]int{[]int{0, 1, 2, 7, 32, 128}[r.IntN(6)],
		[]int{0, 1, 3, 16, 32, 50, 128, 129}[r.IntN(8)]}
	m.Stride = m.Cols + r.IntN(9)
	m.Codes = make([]byte, max(0, (m.Rows-1)*m.Stride)+m.Cols)
	for i := range m.Codes {
		m.Codes[i] = byte(r.Uint32())
	}
	rows, cols := 1, 1
	if m.Block[0] > 0 {
		rows = ceilDiv(m.Row+m.Rows, m.Block[0])
	}
	if m.Block[1] > 0 {
		cols = ceilDiv(m.Col+m.Cols, m.Block[1])
	}
	m.ScaleStride = cols + r.IntN(3)
	m.Scales = make([]float32, max(1, rows*m.ScaleStride))
	for i := range m.Scales {
		m.Scales[i] = randomScale(r)
	}
	return m
}

func checkDequantize(t *testing.T, m *Matrix, out Format, gap int) {
	t.Helper()
	stride := m.Cols*out.Size() + gap
	n := max(0, (m.Rows-1)*stride) + m.Cols*out.Size()
	got, want := bytes.Repeat([]byte{canary}, n+16), bytes.Repeat([]byte{canary}, n+16)
	Dequantize(got[8:8+n], stride, out, m)
	oracleDequantize(want[8:8+n], stride, out, m)
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			r, c := (i-8)/max(1, stride), (i-8)%max(1, stride)/out.Size()
			t.Fatalf("%v to %v, %d × %d at (%d, %d), block %v: byte %d (row %d, column %d) is "+
				"%#02x, want %#02x",
				m.Format, out, m.Rows, m.Cols, m.Row, m.Col, m.Block, i-8, r, c, got[i], want[i])
		}
	}
}

func TestDequantizeMatchesOracle(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for range 300/thinning + 1 {
			m := randomMatrix(r, 40, 600)
			for _, out := range []Format{BF16, F16, F32} {
				checkDequantize(t, m, out, r.IntN(5))
			}
		}
	})
}

// TestDequantizeWideRows has more blocks than are prepared at once.
func TestDequantizeWideRows(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, block := range [][2]int{{4, 128}, {16, 50}, {0, 0}, {1, 128}, {0, 1}} {
			for _, cols := range []int{4097, 8320, 9000} {
				m := randomMatrix(r, 0, 0)
				m.Format, m.Rows, m.Cols, m.Block = E4M3FN, 5, cols, block
				m.Stride, m.Row, m.Col = cols, 3, 77
				m.Codes = make([]byte, m.Rows*cols)
				for i := range m.Codes {
					m.Codes[i] = byte(r.Uint32())
				}
				m.ScaleStride = cols + 77
				m.Scales = make([]float32, 8*m.ScaleStride)
				for i := range m.Scales {
					m.Scales[i] = randomScale(r)
				}
				checkDequantize(t, m, BF16, 0)
				checkDequantize(t, m, F32, 0)
			}
		}
	})
}

// TestDequantizeAnyRange checks that a region decodes as the same region of the whole.
func TestDequantizeAnyRange(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		for range 20 {
			m := randomMatrix(r, 60, 400)
			whole := make([]byte, m.Rows*m.Cols*2)
			Dequantize(whole, m.Cols*2, BF16, m)
			for range 10 {
				checkRegion(t, r, m, whole)
			}
		}
	})
}

func checkRegion(t *testing.T, r *rand.Rand, m *Matrix, whole []byte) {
	t.Helper()
	r0, c0 := r.IntN(m.Rows+1), r.IntN(m.Cols+1)
	part := *m
	part.Row, part.Col = m.Row+r0, m.Col+c0
	part.Rows, part.Cols = r.IntN(m.Rows-r0+1), r.IntN(m.Cols-c0+1)
	if part.Rows > 0 && part.Cols > 0 {
		part.Codes = m.Codes[r0*m.Stride+c0:]
	}
	got := make([]byte, part.Rows*part.Cols*2)
	Dequantize(got, part.Cols*2, BF16, &part)
	for i := range part.Rows {
		want := whole[((r0+i)*m.Cols+c0)*2:][:part.Cols*2]
		if !bytes.Equal(got[i*part.Cols*2:][:part.Cols*2], want) {
			t.Fatalf("rows %d+%d, columns %d+%d: row %d differs from that of the whole",
				r0, part.Rows, c0, part.Cols, i)
		}
	}
}

// TestDequantizeEveryCodeAndScale combines each code with each class of scale, at each length and
// alignment up to 70.
func TestDequantizeEveryCodeAndScale(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		for _, f := range []Format{E4M3FN, E5M2} {
			for _, out := range []Format{BF16, F16, F32} {
				t.Run(fmt.Sprintf("%v to %v", f, out), func(t *testing.T) {
					everyCodeAndScale(t, f, out)
					everyLength(t, f, out)
				})
			}
		}
	})
}

func everyCodeAndScale(t *testing.T, f, out Format) {
	codes := make([]byte, 256*4)
	for i := range codes {
		codes[i] = byte(i)
	}
	for _, s := range awkwardScales {
		checkDequantize(t, &Matrix{Format: f, Codes: codes, Stride: 256, Rows: 4, Cols: 256,
			Scales: []float32{s}}, out, 0)
		checkDequantize(t, &Matrix{Format: f, Codes: codes, Rows: 1, Cols: 256,
			Scales: []float32{s}}, out, 0)
	}
}

func everyLength(t *testing.T, f, out Format) {
	r := rand.New(rand.NewPCG(9, 10))
	codes := make([]byte, 4096)
	for i := range codes {
		codes[i] = byte(r.Uint32())
	}
	for n := range 140 {
		for _, rows := range []int{1, 30} { // by column and by table
			m := &Matrix{Format: f, Codes: codes[r.IntN(8):], Stride: n,
				Rows: min(rows, 4000/max(n, 1)), Cols: n, Block: [2]int{0, 64}, Col: r.IntN(64),
				Scales: []float32{randomScale(r), 0.1, 3, 1e-4}}
			checkDequantize(t, m, out, r.IntN(8))
		}
	}
}

func FuzzDequantize(f *testing.F) {
	f.Add(uint64(1), byte(0))
	f.Add(uint64(2), byte(1))
	f.Fuzz(func(t *testing.T, seed uint64, out byte) {
		r := rand.New(rand.NewPCG(seed, 0))
		checkDequantize(t, randomMatrix(r, 20, 300), []Format{BF16, F16, F32}[out%3], r.IntN(5))
	})
}
