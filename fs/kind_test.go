package fs

import (
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Latency is told apart by what a read has to do, whatever the recipe is called.
func TestReadsAreToldApartByWhatTheyDo(t *testing.T) {
	file := &memory{name: "source", size: codesSize(256, 256)}
	codes := &expr.Source{Key: "dequant", File: file, DType: safetensors.F8E4M3,
		Shape: []int64{256, 256}}
	scale := &expr.Source{
		Key: "s", File: file, Offset: 256 * 256, DType: safetensors.F32, Shape: []int64{2, 2},
	}
	block := expr.DequantizeOptions{Block: [2]int64{128, 128}, Out: safetensors.BF16}
	must := func(n expr.Node, err error) expr.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	stored := must(expr.Load(codes))
	values := must(expr.Dequantize(codes, scale, block))
	unscaled := must(expr.Dequantize(codes, nil, block))
	for _, test := range []struct {
		node expr.Node
		want kind
	}{
		{stored, kindIdentity},
		{values, kindDequantize},
		{unscaled, kindDequantize},
		{must(expr.Slice(values, 0, 3, 200)), kindDequantize},
		{must(expr.Transpose(values)), kindTranspose},
		{must(expr.Transpose(stored)), kindTranspose},
	} {
		if got := kindOfRecipe(test.node); got != test.want {
			t.Errorf("%s: %s, want %s", test.node, kindNames[got], kindNames[test.want])
		}
	}
}
