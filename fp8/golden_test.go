package fp8

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

// readTensors is a minimal safetensors parser for the goldens.
func readTensors(t *testing.T, name string) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	tensors := map[string][]byte{}
	for key, h := range header {
		if key != "__metadata__" {
			tensors[key] = b[8+n:][h.Offsets[0]:h.Offsets[1]]
		}
	}
	return tensors
}

// number returns element i of b as a float32, exactly.
func number(b []byte, f Format, i int) float32 {
	switch f {
	case BF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
	case F16:
		return oracleFromF16(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}

// sameNumber compares bits. Any two NaNs are equal.
func sameNumber(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func TestGoldenCodes(t *testing.T) {
	tensors := readTensors(t, "../testdata/golden/codes.safetensors")
	scales := make([]float32, 16)
	Scales(scales, tensors["scales"], F32)
	codes := make([]byte, 256)
	for i := range codes {
		codes[i] = byte(i)
	}
	forEachImplementation(t, func(t *testing.T) {
		for i, scale := range scales {
			for dtype, out := range map[string]Format{"bfloat16": BF16, "float16": F16,
				"float32": F32} {
				for _, device := range []string{"cpu", "cuda"} {
					key := fmt.Sprintf("s%d.%s.%s", i, dtype, device)
					want := tensors[key]
					if len(want) != 256*out.Size() {
						t.Fatalf("%s has %d bytes", key, len(want))
					}
					checkGolden(t, key, want, codes, scale, out)
				}
			}
		}
	})
}

// checkGolden decodes codes once (by multiplication) and eight times over (by table).
func checkGolden(t *testing.T, key string, want, codes []byte, scale float32, out Format) {
	t.Helper()
	for _, rows := range []int{1, 8} {
		m := &Matrix{Format: E4M3FN, Codes: codes, Rows: rows, Cols: 256, Scales: []float32{scale}}
		got := make([]byte, rows*256*out.Size())
		Dequantize(got, 256*out.Size(), out, m)
		for j := range rows * 256 {
			if g, w := number(got, out, j), number(want, out, j%256); !sameNumber(g, w) {
				t.Fatalf("%s, code %#02x, %d rows: got %v, want %v", key, j%256, rows, g, w)
			}
		}
	}
}
