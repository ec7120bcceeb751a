package fp8

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// oracleE4M3FN searches all codes for the nearest one, exactly in float64.
func oracleE4M3FN(f float32) byte {
	sign := byte(math.Float32bits(f) >> 24 & 0x80)
	if f != f {
		return sign | 0x7f
	}
	best, distance := byte(0), math.Inf(1)
	for c := range byte(0x7f) {
		d := math.Abs(math.Min(math.Abs(float64(f)), 448) - float64(valuesE4M3FN[c]))
		if d < distance || d == distance && c&1 == 0 {
			best, distance = c, d
		}
	}
	return sign | best
}

func TestRoundE4M3FN(t *testing.T) {
	for f := range interesting {
		if e := math.Float32bits(f) >> 23 & 0xff; e > 112 && e < 140 || e%16 == 0 || e == 255 {
			if got, want := RoundE4M3FN(f), oracleE4M3FN(f); got != want {
				t.Fatalf("RoundE4M3FN(%v) = %#02x, want %#02x", f, got, want)
			}
		}
	}
	for c := range 256 {
		if got := RoundE4M3FN(valuesE4M3FN[c]); got != byte(c) {
			t.Errorf("code %#02x comes back as %#02x", c, got)
		}
	}
}

// TestRoundE4M3FNByHand holds the rounding points of the reference.
func TestRoundE4M3FNByHand(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for f, want := range map[float32]byte{
		0: 0, 0x1p-10: 0x00, 0x1.000002p-10: 0x01, 0x1.8p-9: 0x02, -0x1p-9: 0x81, 448: 0x7e,
		464: 0x7e, 465: 0x7e, 1e9: 0x7e, -1e9: 0xfe, inf: 0x7e, -inf: 0xfe,
		1: 0x38, 1.0625: 0x38, 1.1875: 0x3a, 0x1p-6: 0x08, 0x1.dfp-7: 0x07, 0x1.ep-7: 0x08,
	} {
		if got := RoundE4M3FN(f); got != want {
			t.Errorf("RoundE4M3FN(%x) = %#02x, want %#02x", f, got, want)
		}
	}
	if got := RoundE4M3FN(nan); got != 0x7f {
		t.Errorf("NaN is %#02x", got)
	}
}

// randomPlain returns a region of values of all magnitudes, some of them special.
func randomPlain(r *rand.Rand, rows, cols int, aligned bool) *Plain {
	m := &Plain{Format: []Format{BF16, F16, F32}[r.IntN(3)], Rows: rows, Cols: cols,
		Block: [2]int{[]int{0, 1, 7, 128}[r.IntN(4)], []int{0, 1, 3, 32, 50, 128}[r.IntN(6)]}}
	if m.Block[0] > 0 {
		m.Row = r.IntN(3) * m.Block[0]
	}
	if m.Block[1] > 0 {
		m.Col = r.IntN(3) * m.Block[1]
	}
	if !aligned {
		m.Row, m.Col = m.Row+r.IntN(5), m.Col+r.IntN(5)
	}
	size := m.Format.Size()
	m.Stride = cols*size + r.IntN(9)
	m.Data = make([]byte, extent("", rows, m.Stride, cols*size))
	spread := float64(r.IntN(30))
	for i := range rows {
		for j := range cols {
			f := float32(math.Ldexp(r.NormFloat64(), -int(spread*r.Float64())))
			switch r.IntN(200) {
			case 0:
				f = awkwardScales[r.IntN(len(awkwardScales))]
			case 1:
				f = math.Float32frombits(r.Uint32())
			}
			put(m.Data[i*m.Stride+j*size:], m.Format, f)
		}
	}
	gridRows, gridCols := 1, 1
	if m.Block[0] > 0 {
		gridRows = ceilDiv(m.Row+rows, m.Block[0])
	}
	if m.Block[1] > 0 {
		gridCols = ceilDiv(m.Col+cols, m.Block[1])
	}
	m.ScaleStride = gridCols + r.IntN(3)
	m.Scales = make([]float32, max(1, gridRows*m.ScaleStride))
	return m
}

func put(b []byte, f Format, v float32) {
	switch f {
	case BF16:
		binary.LittleEndian.PutUint16(b, oracleBF16(v))
	case F16:
		binary.LittleEndian.PutUint16(b, oracleF16(v))
	default:
		binary.LittleEndian.PutUint32(b, math.Float32bits(v))
	}
}

// at returns element (r, c) and the index of its scale, by the definition.
func (m *Plain) at(r, c int) (v float32, scale int) {
	if m.Block[0] > 0 {
		scale = (m.Row + r) / m.Block[0] * m.ScaleStride
	}
	if m.Block[1] > 0 {
		scale += (m.Col + c) / m.Block[1]
	}
	return number(m.Data[r*m.Stride:], m.Format, c), scale
}

func oracleScales(m *Plain) map[int]float32 {
	amax := map[int]float64{}
	for r := range m.Rows {
		for c := range m.Cols {
			v, i := m.at(r, c)
			a := math.Abs(float64(v))
			if !(a < math.Inf(1)) {
				a = 0
			}
			amax[i] = max(amax[i], a)
		}
	}
	scales := map[int]float32{}
	for i, a := range amax {
		scales[i] = max(float32(a)/448, 0x1p-126)
	}
	return scales
}

func checkQuantize(t *testing.T, m *Plain, gap int) {
	t.Helper()
	stride := m.Cols + gap
	n := extent("", m.Rows, stride, m.Cols)
	got, want := bytes.Repeat([]byte{canary}, n+16), bytes.Repeat([]byte{canary}, n+16)
	saturated := Quantize(got[8:8+n], stride, m)
	for r := range m.Rows {
		for c := range m.Cols {
			v, i := m.at(r, c)
			q := float32(v / m.Scales[i])
			want[8+r*stride+c] = RoundE4M3FN(q)
			if math.Abs(float64(q)) > 464 {
				saturated--
			}
		}
	}
	if !bytes.Equal(got, want) || saturated != 0 {
		t.Fatalf("%v, %d × %d, block %v: wrong codes, or %d saturated too many",
			m.Format, m.Rows, m.Cols, m.Block, saturated)
	}
}

func TestBlockScales(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(13, 14))
		for range 100/thinning + 1 {
			m := randomPlain(r, 1+r.IntN(150), 1+r.IntN(300), true)
			for i := range m.Scales {
				m.Scales[i] = -7
			}
			want := oracleScales(m)
			BlockScales(m)
			for i, s := range m.Scales {
				if w, ok := want[i]; ok && s != w || !ok && s != -7 {
					t.Fatalf("%v, %d × %d at (%d, %d), block %v: scale %d is %v, want %v",
						m.Format, m.Rows, m.Cols, m.Row, m.Col, m.Block, i, s, w)
				}
			}
			checkQuantize(t, m, r.IntN(5))
		}
	})
}

// TestBlocksWithoutScale has blocks of zeros and blocks without a finite value. They get the
// smallest scale, which is finite.
func TestBlocksWithoutScale(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		inf := float32(math.Inf(1))
		var data []byte
		for _, v := range []float32{0, float32(math.Copysign(0, -1)), inf, -inf,
			float32(math.NaN()), math.Float32frombits(0xffc00000), 448 * 3, inf} {
			data = appendF32(data, v)
		}
		m := &Plain{Format: F32, Data: data, Rows: 1, Cols: 8, Block: [2]int{1, 2},
			Scales: make([]float32, 4)}
		BlockScales(m)
		for i, want := range []float32{0x1p-126, 0x1p-126, 0x1p-126, 3} {
			if m.Scales[i] != want {
				t.Errorf("scale %d is %v, want %v", i, m.Scales[i], want)
			}
		}
		codes := make([]byte, 8)
		saturated := Quantize(codes, 8, m)
		if want := []byte{0, 0x80, 0x7e, 0xfe, 0x7f, 0xff, 0x7e, 0x7e}; !bytes.Equal(codes, want) ||
			saturated != 3 {
			t.Errorf("codes % x, want % x; %d saturated", codes, want, saturated)
		}
	})
}

func TestQuantizeMatchesOracle(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(15, 16))
		for range 200/thinning + 1 {
			m := randomPlain(r, r.IntN(40), r.IntN(300), false)
			for i := range m.Scales {
				m.Scales[i] = randomScale(r)
			}
			checkQuantize(t, m, r.IntN(5))
		}
		wide := randomPlain(r, 3, 9001, false)
		for i := range wide.Scales {
			wide.Scales[i] = 0.01
		}
		checkQuantize(t, wide, 0)
	})
}

// TestSecondTripChangesNothing quantizes dequantized values with the same scales.
func TestSecondTripChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for _, out := range []Format{BF16, F32} {
		codes := make([]byte, 1<<12)
		for i := range codes {
			for codes[i] = 0x7f; codes[i]&0x7f == 0x7f; {
				codes[i] = byte(r.Uint32())
			}
		}
		scales := []float32{0.00123}
		values := make([]byte, len(codes)*out.Size())
		Dequantize(values, 0, out, &Matrix{Format: E4M3FN, Codes: codes, Rows: 1, Cols: len(codes),
			Scales: scales})
		again := make([]byte, len(codes))
		Quantize(again, 0, &Plain{Format: out, Data: values, Rows: 1, Cols: len(codes),
			Scales: scales})
		if !bytes.Equal(codes, again) {
			t.Errorf("%v: codes changed", out)
		}
	}
}

func TestAmax(t *testing.T) {
	b := appendF32(appendF32(appendF32(nil, -3), float32(math.Inf(1))), 5)
	if got := Amax(b, F32, 2); got != 3 {
		t.Errorf("got %v", got)
	}
	if got := Amax(b, F32, 3); got != 5 {
		t.Errorf("got %v", got)
	}
	if got := Amax(nil, BF16, 0); got != 0 {
		t.Errorf("got %v", got)
	}
	mustPanic(t, "13 values", func() { Amax(b, F32, 13) })
	mustPanic(t, "E5M2", func() { Amax(b, E5M2, 1) })
}

func TestQuantizeChecksItsContract(t *testing.T) {
	good := Plain{Format: BF16, Data: make([]byte, 128), Stride: 16, Rows: 8, Cols: 8,
		Block: [2]int{4, 4}, Scales: []float32{1, 1, 1, 1}, ScaleStride: 2}
	codes := make([]byte, 64)
	Quantize(codes, 8, &good)
	BlockScales(&good)
	for want, broken := range map[string]func(m *Plain){
		"cannot quantize E5M2": func(m *Plain) { m.Format = E5M2 },
		"values":               func(m *Plain) { m.Data = m.Data[:127] },
		"negative rows":        func(m *Plain) { m.Rows = -1 },
		"scales: a grid of 3":  func(m *Plain) { m.Row = 4 },
		"beyond":               func(m *Plain) { m.Col = math.MaxInt - 3 },
	} {
		m := good
		broken(&m)
		mustPanic(t, want, func() { Quantize(codes, 8, &m) })
		mustPanic(t, want, func() { BlockScales(&m) })
	}
	mustPanic(t, "destination", func() { Quantize(codes[:63], 8, &good) })
	mustPanic(t, "overlap", func() { Quantize(good.Data, 8, &good) })
	inside := good
	inside.Row, inside.Rows = 1, 7
	mustPanic(t, "inside a block", func() { BlockScales(&inside) })
}
