package fp8_test

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/fp8"
)

// A weight of 2 × 4 codes in blocks of 2 × 2 is decoded to BF16.
func ExampleDequantize() {
	m := &fp8.Matrix{
		Format: fp8.E4M3FN,
		Codes:  []byte{0x38, 0xb8, 0x38, 0x39, 0x00, 0x30, 0x7e, 0x01},
		Stride: 4, Rows: 2, Cols: 4,
		Block:  [2]int{2, 2},
		Scales: []float32{2, 0.5}, ScaleStride: 2,
	}
	dst := make([]byte, 2*2*4)
	fp8.Dequantize(dst, 2*4, fp8.BF16, m)
	for i := range 8 {
		fmt.Print(fp8.FromBF16(binary.LittleEndian.Uint16(dst[2*i:])), " ")
	}
	// Output: 2 -2 0.5 0.5625 0 1 224 0.0009765625
}

// A row of values becomes codes with one scale. The scale maps the largest magnitude to the largest
// code.
func ExampleQuantize() {
	data := make([]byte, 4*3)
	for i, v := range []float32{896, -2, 0.5} {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	m := &fp8.Plain{Format: fp8.F32, Data: data, Rows: 1, Cols: 3, Scales: make([]float32, 1)}
	fp8.BlockScales(m)
	codes := make([]byte, 3)
	saturated := fp8.Quantize(codes, 3, m)
	fmt.Printf("% x, scale %v, %d saturated\n", codes, m.Scales[0], saturated)
	// Output: 7e b8 28, scale 2, 0 saturated
}
