package expr_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// file is a shard in memory.
type file struct {
	steady.File
	*bytes.Reader
}

func (f *file) Name() string { return "model.safetensors" }

func (f *file) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return f.Reader.ReadAt(p, off)
}

// shard holds an expert of 2 × 3: codes of gate_proj and up_proj, and one scale for both.
func shard() (gate, up, scale *expr.Source) {
	data := []byte{
		0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, // 1 2 3 4 5 6
		0xb8, 0xc0, 0xc4, 0xc8, 0xca, 0xcc, // -1 … -6
	}
	data = binary.LittleEndian.AppendUint32(data, math.Float32bits(0.5))
	f := &file{Reader: bytes.NewReader(data)}
	weight := func(name string, off int64) *expr.Source {
		return &expr.Source{Key: name + "_proj.weight", File: f, Offset: off,
			DType: safetensors.F8E4M3, Shape: []int64{2, 3}}
	}
	return weight("gate", 0), weight("up", 6),
		&expr.Source{Key: "scale", File: f, Offset: 12, DType: safetensors.F32,
			Shape: []int64{1, 1}}
}

// print prints a node of float32s, row by row.
func print(n expr.Node) {
	p := make([]byte, n.Size())
	if err := n.ReadAt(nil, p, 0); err != nil {
		fmt.Println(err)
		return
	}
	values := make([]float32, len(p)/4)
	binary.Decode(p, binary.LittleEndian, values)
	width := int(n.Shape()[len(n.Shape())-1])
	for ; len(values) > 0; values = values[width:] {
		fmt.Println(values[:width])
	}
}

func must(n expr.Node, err error) expr.Node {
	if err != nil {
		panic(err)
	}
	return n
}

func ExampleDequantize() {
	gate, _, scale := shard()
	n := must(expr.Dequantize(gate, scale, expr.DequantizeOptions{Block: [2]int64{128, 128},
		Out: safetensors.F32}))
	fmt.Println(n)
	print(n)
	// Output:
	// dequantize(gate_proj.weight, scale, 128×128, f32)
	// [0.5 1 1.5]
	// [2 2.5 3]
}

// The native layout of NeMo AutoModel: gate and up side by side, transposed.
func ExampleConcat() {
	gate, up, scale := shard()
	o := expr.DequantizeOptions{Block: [2]int64{128, 128}, Out: safetensors.F32}
	g := must(expr.Transpose(must(expr.Dequantize(gate, scale, o))))
	u := must(expr.Transpose(must(expr.Dequantize(up, scale, o))))
	expert := must(expr.Concat(-1, g, u))
	all := must(expr.Stack(expert, expert))
	fmt.Println(all.Shape(), all.DType())
	print(expert)
	// Output:
	// [2 3 4] F32
	// [0.5 2 -0.5 -2]
	// [1 2.5 -1 -2.5]
	// [1.5 3 -1.5 -3]
}

// A read may begin and end anywhere. Its needs of the source are known in advance.
func ExampleNode() {
	gate, _, scale := shard()
	n := must(expr.Dequantize(gate, scale, expr.DequantizeOptions{Out: safetensors.BF16}))
	n.Ranges(3, 4, func(f expr.File, off, n int64) bool {
		fmt.Printf("%s: %d bytes at %d\n", f.Name(), n, off)
		return true
	})
	must(expr.Transpose(n)).Units(3, 4, func(u *expr.Unit) bool {
		fmt.Printf("%s: %d bytes\n", u, u.Size())
		return true
	})
	p := make([]byte, 4)
	err := n.ReadAt(nil, p, 3)
	fmt.Printf("% x %v\n", p, err)
	// Output:
	// model.safetensors: 3 bytes at 1
	// transposed gate_proj.weight: 6 bytes
	// 3f c0 3f 00 <nil>
}

func ExampleQuantize() {
	gate, _, scale := shard()
	n := must(expr.Dequantize(gate, scale, expr.DequantizeOptions{Out: safetensors.BF16}))
	codes, scales, err := expr.Quantize(n, expr.QuantizeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p := make([]byte, codes.Size())
	if err := codes.ReadAt(nil, p, 0); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%x\n", p)
	print(scales)
	// Output:
	// 697176797c7e
	// [0.0066964286]
}
