package fp8

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

func wordAt(b []byte, i int) uint16 { return binary.LittleEndian.Uint16(b[2*i:]) }

func appendF32(b []byte, f float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
}

// TestCodes checks the tables against an independent definition of the formats.
func TestCodes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		f    Format
		code byte
		want float32
	}{
		{E4M3FN, 0x00, 0}, {E4M3FN, 0x01, 0x1p-9}, {E4M3FN, 0x07, 0x7p-9}, {E4M3FN, 0x08, 0x1p-6}, {E4M3FN, 0x38, 1}, {E4M3FN, 0x39, 1.125},
		{E4M3FN, 0x7e, 448}, {E4M3FN, 0x7f, nan}, {E4M3FN, 0xb8, -1}, {E4M3FN, 0xfe, -448}, {E4M3FN, 0xff, nan},
		{E5M2, 0x01, 0x1p-16}, {E5M2, 0x04, 0x1p-14}, {E5M2, 0x3c, 1}, {E5M2, 0x7b, 57344}, {E5M2, 0x7c, inf}, {E5M2, 0xfc, -inf}, {E5M2, 0x7d, nan},
		{E8M0, 0, 0x1p-127}, {E8M0, 127, 1}, {E8M0, 254, 0x1p127}, {E8M0, 255, nan},
		{E2M1, 0, 0}, {E2M1, 1, .5}, {E2M1, 2, 1}, {E2M1, 3, 1.5}, {E2M1, 4, 2}, {E2M1, 5, 3}, {E2M1, 6, 4}, {E2M1, 7, 6}, {E2M1, 15, -6},
	} {
		if got := c.f.Values()[c.code]; !sameNumber(got, c.want) {
			t.Errorf("%v %#02x is %v, want %v", c.f, c.code, got, c.want)
		}
	}
}

func TestCodesAreOrderedAndSymmetric(t *testing.T) {
	for _, f := range []Format{E4M3FN, E5M2} {
		v := f.Values()
		for c := range 128 {
			if math.Float32bits(v[c])^1<<31 != math.Float32bits(v[c+128]) {
				t.Errorf("%v: %#02x and %#02x are %v and %v", f, c, c+128, v[c], v[c+128])
			}
			if c > 0 && v[c] <= v[c-1] {
				t.Errorf("%v: %#02x is not above the code before it", f, c)
			}
		}
	}
}

func TestE5M2IsTheUpperHalfOfF16(t *testing.T) {
	for c := range 256 {
		if got, want := E5M2.Values()[c], oracleFromF16(uint16(c)<<8); !sameNumber(got, want) {
			t.Errorf("%#02x is %v, want %v", c, got, want)
		}
	}
}

func TestScales(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		f    Format
		src  []byte
		want []float32
	}{
		{F32, []byte{0, 0, 0x80, 0x3f, 1, 0, 0, 0}, []float32{1, 0x1p-149}},
		{BF16, []byte{0x80, 0x3f, 0xc0, 0x7f}, []float32{1, nan}},
		{F16, []byte{0, 0x3c, 1, 0, 0, 0xfc}, []float32{1, 0x1p-24, float32(math.Inf(-1))}},
		{E8M0, []byte{0, 127, 128, 255}, []float32{0x1p-127, 1, 2, nan}},
		{E4M3FN, []byte{0x38, 0xb8, 0x7f}, []float32{1, -1, nan}},
		{E5M2, []byte{0x3c}, []float32{1}},
		{F32, nil, nil},
	} {
		got := make([]float32, len(c.want))
		Scales(got, c.src, c.f)
		for i := range got {
			if !sameNumber(got[i], c.want[i]) {
				t.Errorf("%v: got %v, want %v", c.f, got, c.want)
			}
		}
	}
}

func TestScaleShape(t *testing.T) {
	for _, c := range [][5]int{{576, 7168, 128, 5, 56}, {128, 128, 128, 1, 1}, {1, 129, 128, 1, 2},
		{0, 5, 128, 0, 1}, {50, 26, 25, 2, 2}} {
		if r, k := CalculateScaleShape(c[0], c[1], c[2]); r != c[3] || k != c[4] {
			t.Errorf("%v: got %d × %d", c, r, k)
		}
	}
	ones := CreateScaleInvForWeight(200, 300, BlockSize)
	if len(ones) != 2*3 {
		t.Errorf("a grid of %d", len(ones))
	}
	for _, s := range ones {
		if s != 1 {
			t.Errorf("a scale of %v", s)
		}
	}
}

func TestFormatNames(t *testing.T) {
	if E4M3FN.String() != "E4M3FN" || Format(0).String() != "Format(0)" ||
		Format(99).String() != "Format(99)" || Format(99).Size() != 0 || F32.Size() != 4 {
		t.Error("wrong names or sizes")
	}
}

// mustPanic checks that f panics with a message of this package that contains want.
func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		got, ok := recover().(string)
		if !ok || !strings.HasPrefix(got, "fp8: ") || !strings.Contains(got, want) {
			t.Errorf("panic %q, want one with %q", got, want)
		}
	}()
	f()
	t.Errorf("no panic, want one with %q", want)
}

func TestContractIsChecked(t *testing.T) {
	buf := make([]byte, 64)
	mustPanic(t, "bytes are not", func() { Scales(make([]float32, 2), buf[:7], F32) })
	mustPanic(t, "bytes are not", func() { Scales(make([]float32, 2), buf[:1], E2M1) })
	mustPanic(t, "cannot convert", func() { Convert(buf, E4M3FN, buf, F32, 1) })
	mustPanic(t, "cannot convert 5", func() { Convert(make([]byte, 9), BF16, buf, F32, 5) })
	mustPanic(t, "cannot convert -1", func() { Convert(make([]byte, 9), BF16, buf, F32, -1) })
	mustPanic(t, "overlap", func() { Convert(buf[1:], BF16, buf, F32, 1) })
	mustPanic(t, "no table", func() { F32.Values() })
	mustPanic(t, "block of no size", func() { CalculateScaleShape(1, 1, 0) })
	mustPanic(t, "elements of 3", func() { Transpose(buf, 8, buf, 8, 1, 1, 3) })
	mustPanic(t, "cannot transpose -1", func() { Transpose(buf, 8, buf, 8, -1, 1, 1) })
	mustPanic(t, "source", func() { Transpose(make([]byte, 99), 9, buf, 8, 9, 8, 1) })
	mustPanic(t, "destination", func() { Transpose(make([]byte, 63), 8, buf, 8, 8, 8, 1) })
	mustPanic(t, "rows of 8 bytes overlap", func() {
		Transpose(make([]byte, 64), 7, buf, 8, 8, 8,
			1)
	})
	mustPanic(t, "overlap", func() { Transpose(buf, 8, buf, 8, 8, 8, 1) })
	mustPanic(t, "more than memory", func() {
		Transpose(make([]byte, 64), 8, buf, math.MaxInt, 8, 8,
			1)
	})
	mustPanic(t, "negative", func() { Transpose(make([]byte, 64), 8, buf, -8, 8, 8, 1) })
}

func TestDequantizeChecksItsContract(t *testing.T) {
	good := Matrix{Format: E4M3FN, Codes: make([]byte, 64), Stride: 8, Rows: 8, Cols: 8,
		Block: [2]int{4, 4}, Scales: make([]float32, 4), ScaleStride: 2}
	dst := make([]byte, 128)
	Dequantize(dst, 16, BF16, &good)
	for want, broken := range map[string]func(m *Matrix){
		"E2M1":                func(m *Matrix) { m.Format = E2M1 },
		"codes":               func(m *Matrix) { m.Codes = m.Codes[:63] },
		"codes: 8 rows":       func(m *Matrix) { m.Stride = 9 },
		"negative rows":       func(m *Matrix) { m.Rows = -1 },
		"0, 8, -1":            func(m *Matrix) { m.Cols, m.Rows = -1, 0 },
		"negative origin":     func(m *Matrix) { m.Row = -1 },
		"(0, -1)":             func(m *Matrix) { m.Col = -1 },
		"[-1 4]":              func(m *Matrix) { m.Block[0] = -1 },
		"scales: a grid of 3": func(m *Matrix) { m.Row = 1 },
		"scales: a grid of 2": func(m *Matrix) { m.ScaleStride = 3 },
		"beyond":              func(m *Matrix) { m.Col = math.MaxInt - 3 },
	} {
		m := good
		broken(&m)
		mustPanic(t, want, func() { Dequantize(dst, 16, BF16, &m) })
	}
	mustPanic(t, "destination", func() { Dequantize(dst[:127], 16, BF16, &good) })
	mustPanic(t, "destination", func() { Dequantize(dst, 16, F32, &good) })
	mustPanic(t, "rows of 16 bytes overlap", func() { Dequantize(dst, 15, BF16, &good) })
	mustPanic(t, "to E8M0", func() { Dequantize(dst, 16, E8M0, &good) })
	overlapping := good
	overlapping.Codes = dst[64:]
	mustPanic(t, "overlap", func() { Dequantize(dst, 16, BF16, &overlapping) })
}
