package expr

import (
	"bytes"
	"slices"
	"testing"
)

// again makes a recipe over a file with nothing in it. So recipes that store the same tensors have
// them in the same place.
func again(t *testing.T, file *memory, make func(m *maker) both) both {
	t.Helper()
	m := newMaker(t, 1)
	file.data, m.file = m.file.data, file
	return make(m)
}

// readAll reads a recipe whole.
func readAll(t *testing.T, n Node) []byte {
	t.Helper()
	p := make([]byte, n.Size())
	if err := n.ReadAt(nil, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// A recipe that is made again is the same, also after it was read. Recipes that are the same have
// the same bytes.
func TestTheSameRecipes(t *testing.T) {
	file := &memory{}
	var all []both
	for _, r := range allRecipes {
		first := again(t, file, r.make)
		readAll(t, first.Node)
		second := again(t, file, r.make)
		if !Same(first.Node, second.Node) || !Same(second.Node, first.Node) {
			t.Errorf("%s: made again it is not the same: %s", r.name, first)
		}
		all = append(all, first)
	}
	for i, a := range all {
		for j, b := range all[:i] {
			if !Same(a.Node, b.Node) {
				continue
			}
			if a.want.dtype != b.want.dtype || !slices.Equal(a.want.shape, b.want.shape) ||
				!bytes.Equal(a.want.bytes(), b.want.bytes()) {
				t.Errorf("%s and %s are the same, but have other bytes", allRecipes[i].name,
					allRecipes[j].name)
			}
		}
	}
}

// Whatever changes the bytes makes another recipe.
func TestRecipesThatAreNotTheSame(t *testing.T) {
	one, two := &memory{data: make([]byte, 4096)}, &memory{data: make([]byte, 4095)}
	made := must(t)
	codes := func(file *memory, off, offScale int64, o DequantizeOptions) Node {
		return made(Dequantize(&Source{Key: "w", File: file, Offset: off, DType: f8,
			Shape: []int64{32, 32}}, &Source{Key: "s", File: file, Offset: offScale, DType: f32,
			Shape: []int64{2, 2}}, o))
	}
	usual := DequantizeOptions{[2]int64{16, 16}, bf16}
	n := codes(one, 0, 2048, usual)
	if !Same(n, codes(one, 0, 2048, usual)) {
		t.Error("made again it is not the same")
	}
	for name, other := range map[string]Node{
		"another file":      codes(two, 0, 2048, usual),
		"another offset":    codes(one, 4, 2048, usual),
		"other scales":      codes(one, 0, 2052, usual),
		"other blocks":      codes(one, 0, 2048, DequantizeOptions{[2]int64{31, 16}, bf16}),
		"another dtype":     codes(one, 0, 2048, DequantizeOptions{[2]int64{16, 16}, f16}),
		"transposed":        made(Transpose(n)),
		"swapped":           made(SwapRows(n, 2, 2)),
		"swapped otherwise": made(SwapRows(n, 4, 2)),
		"multiplied":        made(Multiply(made(Cast(n, f32)), 2, bf16)),
		"zeros":             made(Blank(bf16, 32, 32)),
		"joined":            made(Concat(0, made(Slice(n, 0, 16, 32)), made(Slice(n, 0, 0, 16)))),
	} {
		if Same(n, other) || Same(other, n) {
			t.Errorf("%s: the same as %s", name, n)
		}
	}
	if a, b := made(SwapRows(n, 2, 2)), made(SwapRows(n, 4, 2)); Same(a, b) {
		t.Errorf("%s is the same as %s", a, b)
	}
}
