package expr

import (
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Whether a recipe decodes follows from what it does, not from the names of its tensors.
func TestDecodesIsToldByTheRecipe(t *testing.T) {
	m := newMaker(t, 1)
	plain, err := Load(m.store("dequantize.weight", m.random(safetensors.BF16, 4, 4)))
	if err != nil {
		t.Fatal(err)
	}
	codes, err := Dequantize(m.store("w", m.random(safetensors.F8E4M3, 4, 4)), nil,
		DequantizeOptions{Out: safetensors.BF16})
	if err != nil {
		t.Fatal(err)
	}
	made := func(n Node, err error) Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	wrap := map[string]func(Node) Node{
		"itself":    func(n Node) Node { return n },
		"cast":      func(n Node) Node { return made(Cast(n, safetensors.F32)) },
		"multiply":  func(n Node) Node { return made(Multiply(made(Cast(n, safetensors.F32)), 3, bf16)) },
		"reshape":   func(n Node) Node { return made(Reshape(n, 16)) },
		"transpose": func(n Node) Node { return made(Transpose(made(Concat(1, n, plain)))) },
		"slice":     func(n Node) Node { return made(Slice(made(Reshape(n, 2, 2, 4)), 0, 0, 1)) },
		"swap rows": func(n Node) Node { return made(SwapRows(n, 1, 2)) },
		"product":   func(n Node) Node { return made(Product(n, made(Index(plain, 0)))) },
		"by":        func(n Node) Node { return made(Product(plain, made(Index(n, 0)))) },
		"concat":    func(n Node) Node { return made(Concat(0, plain, n)) },
		"stack":     func(n Node) Node { return made(Stack(plain, n)) },
		"codes": func(n Node) Node {
			c, _, err := Quantize(n, QuantizeOptions{})
			return made(c, err)
		},
		"scales": func(n Node) Node {
			_, s, err := Quantize(n, QuantizeOptions{})
			return made(s, err)
		},
	}
	for name, f := range wrap {
		if f(plain).Decodes() {
			t.Errorf("%s of a stored tensor decodes: %s", name, f(plain))
		}
		if !f(codes).Decodes() {
			t.Errorf("%s of codes does not decode: %s", name, f(codes))
		}
	}
}
