package expr

import (
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// stored returns a tensor without meaningful bytes, for errors that occur when a node is built.
func stored(key string, d safetensors.DType, shape ...int64) *Source {
	return &Source{Key: key, File: &memory{data: make([]byte, 1<<16)}, DType: d, Shape: shape}
}

func mustLoad(t *testing.T, key string, d safetensors.DType, shape ...int64) Node {
	t.Helper()
	n, err := Load(stored(key, d, shape...))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGridsThatDoNotFitAreRefusedByName(t *testing.T) {
	for _, test := range []struct {
		weight []int64
		block  [2]int64
		scale  safetensors.DType
		grid   []int64
		ok     bool
	}{
		{[]int64{200, 100}, blocks, f32, []int64{2, 1}, true},
		{[]int64{200, 100}, blocks, f32, []int64{2}, true},
		{[]int64{100, 200}, blocks, f32, []int64{2}, true},
		{[]int64{200, 100}, blocks, f32, []int64{3, 3}, true},
		{[]int64{200, 100}, blocks, f32, []int64{1, 1}, false},
		{[]int64{200, 100}, blocks, f32, []int64{1}, false},
		{[]int64{200, 100}, blocks, f32, []int64{}, false},
		{[]int64{200, 200}, blocks, f32, []int64{2, 1}, false},
		{[]int64{200, 200}, blocks, f32, []int64{4}, false},
		{[]int64{200, 100}, blocks, f32, []int64{2, 1, 1}, false},
		{[]int64{200, 100}, blocks, safetensors.I32, []int64{2, 1}, false},
		{[]int64{200, 100}, blocks, safetensors.U8, []int64{2, 1}, true},
		{[]int64{200, 100}, blocks, safetensors.I8, []int64{2, 1}, false},
		{[]int64{200, 100}, blocks, f8, []int64{2, 1}, false},
		{[]int64{200, 100}, [2]int64{-1, 128}, f32, []int64{200, 1}, false},
		{[]int64{20, 10}, [2]int64{}, f32, []int64{}, true},
		{[]int64{20, 10}, [2]int64{}, f32, []int64{1}, true},
		{[]int64{20, 10}, [2]int64{1, 0}, f32, []int64{20}, true},
		{[]int64{20, 10}, [2]int64{1, 0}, f32, []int64{20, 1}, true},
		{[]int64{20, 10}, [2]int64{1, 0}, f32, []int64{19, 1}, false},
		{[]int64{20, 10}, [2]int64{1, 0}, f32, []int64{1, 20}, false},
		{[]int64{3, 20, 10}, [2]int64{}, f32, []int64{3}, true},
		{[]int64{3, 20, 10}, [2]int64{}, f32, []int64{3, 1, 1}, true},
		{[]int64{3, 20, 10}, [2]int64{}, f32, []int64{1}, true},
		{[]int64{3, 20, 10}, [2]int64{}, f32, []int64{2}, false},
		{[]int64{3, 20, 10}, [2]int64{}, f32, []int64{4, 1, 1}, false},
		{[]int64{3, 20, 10}, [2]int64{1, 0}, f32, []int64{3, 20}, true},
		{[]int64{3, 20, 10}, [2]int64{1, 0}, f32, []int64{20}, false},
		{[]int64{3, 20, 10}, [2]int64{8, 8}, bf16, []int64{3, 3, 2}, true},
		{[]int64{3, 20, 10}, [2]int64{8, 8}, bf16, []int64{3, 2, 2}, false},
		{[]int64{0, 10}, blocks, f32, []int64{0, 1}, true},
	} {
		w, s := stored("mlp.up_proj.weight", f8, test.weight...),
			stored("mlp.up_proj.weight_scale_inv", test.scale, test.grid...)
		_, err := Dequantize(w, s, DequantizeOptions{test.block, bf16})
		if test.ok != (err == nil) {
			t.Errorf("weight %v, blocks %v, grid %s %v: %v",
				test.weight, test.block, test.scale, test.grid, err)
		}
		if err != nil && !strings.Contains(err.Error(), s.Key) {
			t.Errorf("%q does not name %s", err, s.Key)
		}
	}
}

func TestRecipesThatMakeNoSenseAreRefusedByName(t *testing.T) {
	w := mustLoad(t, "layers.0.weight", bf16, 6, 4)
	packed := mustLoad(t, "layers.0.weight", safetensors.F4, 6, 4)
	scale := stored("layers.0.weight_scale_inv", f32, 1, 1)
	other := mustLoad(t, "other", bf16, 6, 5)
	for name, build := range map[string]func() (Node, error){
		"tensor beyond its file": func() (Node, error) { return Load(stored("layers.0.weight", f32, 1<<20)) },
		"tensor before its file": func() (Node, error) {
			s := stored("layers.0.weight", f32, 1)
			s.Offset = -4
			return Load(s)
		},
		"tensor too large":     func() (Node, error) { return Load(stored("layers.0.weight", f32, 1<<40, 1<<40)) },
		"tensor without dtype": func() (Node, error) { return Load(stored("layers.0.weight", safetensors.Invalid, 1)) },
		"codes that are none": func() (Node, error) {
			return Dequantize(stored("layers.0.weight", bf16, 6, 4), scale,
				DequantizeOptions{Out: bf16})
		},
		"codes in a vector": func() (Node, error) {
			return Dequantize(stored("layers.0.weight", f8, 6), scale, DequantizeOptions{Out: bf16})
		},
		"dequantize to F64": func() (Node, error) {
			return Dequantize(stored("layers.0.weight", f8, 6, 4), scale,
				DequantizeOptions{Out: safetensors.F64})
		},
		"cast to I32":                         func() (Node, error) { return Cast(w, safetensors.I32) },
		"cast of packed":                      func() (Node, error) { return Cast(packed, bf16) },
		"multiply of BF16":                    func() (Node, error) { return Multiply(w, 3, f32) },
		"multiply to F64":                     func() (Node, error) { return Multiply(mustLoad(t, "layers.0.weight", f32, 6), 3, safetensors.F64) },
		"rows in no order":                    func() (Node, error) { return SwapRows(w, 0, 2) },
		"rows that do not divide into heads":  func() (Node, error) { return SwapRows(w, 4, 2) },
		"heads that do not divide into parts": func() (Node, error) { return SwapRows(w, 2, 2) },
		"rows of a scalar":                    func() (Node, error) { return SwapRows(mustLoad(t, "layers.0.weight", bf16), 1, 1) },
		"rows of packed":                      func() (Node, error) { return SwapRows(packed, 3, 2) },
		"heads beyond an int":                 func() (Node, error) { return SwapRows(w, 1<<62, 4) },
		"product by a matrix":                 func() (Node, error) { return Product(w, w) },
		"product by another number of values": func() (Node, error) { return Product(w, mustLoad(t, "by", bf16, 4)) },
		"product of a scalar": func() (Node, error) {
			return Product(mustLoad(t, "layers.0.weight", bf16), mustLoad(t, "by", bf16, 1))
		},
		"product of integers": func() (Node, error) {
			return Product(mustLoad(t, "layers.0.weight", safetensors.I32, 6),
				mustLoad(t, "by", bf16, 6))
		},
		"product by F64":            func() (Node, error) { return Product(w, mustLoad(t, "by", safetensors.F64, 6)) },
		"product of packed":         func() (Node, error) { return Product(packed, mustLoad(t, "by", bf16, 6)) },
		"transpose of a vector":     func() (Node, error) { return Transpose(mustLoad(t, "layers.0.weight", bf16, 6)) },
		"transpose of packed":       func() (Node, error) { return Transpose(packed) },
		"slice beyond":              func() (Node, error) { return Slice(w, 1, 2, 5) },
		"slice backwards":           func() (Node, error) { return Slice(w, 1, 3, 2) },
		"slice of no axis":          func() (Node, error) { return Slice(w, 2, 0, 1) },
		"index beyond":              func() (Node, error) { return Index(w, 6) },
		"index of a scalar":         func() (Node, error) { return Index(mustLoad(t, "layers.0.weight", bf16), 0) },
		"reshape to another size":   func() (Node, error) { return Reshape(w, 5, 5) },
		"reshape to negative sizes": func() (Node, error) { return Reshape(w, -6, -4) },
		"concat of two widths":      func() (Node, error) { return Concat(0, w, other) },
		"concat of two dtypes":      func() (Node, error) { return Concat(0, w, mustLoad(t, "other", f16, 6, 4)) },
		"concat of two ranks":       func() (Node, error) { return Concat(0, w, mustLoad(t, "other", bf16, 6)) },
		"concat along no axis":      func() (Node, error) { return Concat(-3, w, w) },
		"stack of two shapes":       func() (Node, error) { return Stack(w, other) },
	} {
		n, err := build()
		if err == nil {
			t.Errorf("%s: built %s", name, n)
		} else if !strings.Contains(err.Error(), "layers.0.weight") {
			t.Errorf("%s: %q does not name the tensor", name, err)
		}
	}
	if n, err := Blank(f32, 1<<40, 1<<40); err == nil {
		t.Errorf("zeros that are too many: built %s", n)
	}
	for name, build := range map[string]func() (Node, error){
		"concat": func() (Node, error) { return Concat(0) },
		"stack":  func() (Node, error) { return Stack() },
	} {
		if _, err := build(); err == nil {
			t.Errorf("%s of nothing was built", name)
		}
	}
}

// foreign is a node of another package.
type foreign struct{ Node }

func TestNodesOfOtherPackagesAreRefused(t *testing.T) {
	n := foreign{mustLoad(t, "w", bf16, 2, 2)}
	for name, build := range map[string]func() (Node, error){
		"transpose": func() (Node, error) { return Transpose(n) },
		"reshape":   func() (Node, error) { return Reshape(n, 4) },
		"stack":     func() (Node, error) { return Stack(n, n) },
	} {
		if _, err := build(); err == nil || !strings.Contains(err.Error(),
			"not a node of this package") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecipesReadAsOneLine(t *testing.T) {
	m := newMaker(t, 1)
	expert := func(key string) Node {
		w := stored("experts."+key+".gate_proj.weight", f8, 20, 30)
		s := stored("experts."+key+".gate_proj.weight_scale_inv", f32, 1, 1)
		n, err := Dequantize(w, s, DequantizeOptions{blocks, bf16})
		if err != nil {
			t.Fatal(err)
		}
		return m.both(tensor{})(Transpose(n)).Node
	}
	w := mustLoad(t, "w", bf16, 6, 8)
	batch := mustLoad(t, "experts", bf16, 4, 6, 8)
	must := must(t)
	dequantized := must(Dequantize(stored("a", f8, 6, 8), stored("b", bf16),
		DequantizeOptions{Out: f32}))
	scaled := must(Dequantize(stored("x.weight", f8, 6, 8), stored("x.scale", f32),
		DequantizeOptions{Out: bf16}))
	codes, scales, err := Quantize(w, QuantizeOptions{Scales: Ones})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		n    Node
		want string
	}{
		{w, "w"},
		{must(Transpose(w)), "transpose(w)"},
		{must(Cast(w, f32)), "cast(w, f32)"},
		{must(Multiply(must(Cast(w, f32)), 0.5, bf16)), "multiply(cast(w, f32), 0.5, bf16)"},
		{must(SwapRows(w, 3, 2)), "w"},
		{must(SwapRows(must(Slice(w, 0, 0, 4)), 1, 2)), "swap_rows(w[0:4, :], 1, 2)"},
		{must(SwapRows(must(SwapRows(batch, 1, 2)), 2, 2)), "swap_rows(experts, 1, 2)"},
		{must(Index(must(SwapRows(batch, 1, 2)), 1)), "experts[2, :, :]"},
		{must(SwapRows(mustLoad(t, "bias", bf16, 32), 2, 8)), "swap_rows(bias, 2, 8)"},
		{must(Product(w, mustLoad(t, "by", bf16, 6))), "product(w, by)"},
		{must(Slice(must(Product(w, mustLoad(t, "by", bf16, 6))), 0, 1, 3)), "product(w[1:3, :], by[1:3])"},
		{must(Index(must(Product(batch, mustLoad(t, "by", bf16, 4))), 2)), "product(experts[2, :, :], by[2:3])"},
		{must(Slice(w, 1, 2, 5)), "w[:, 2:5]"},
		{must(Index(must(Slice(must(Slice(batch, 1, 1, 5)), 1, 1, 3)), 2)), "experts[2, 2:4, :]"},
		{must(Index(must(Transpose(batch)), 1)), "transpose(experts[1, :, :])"},
		{expert("3"), "transpose(dequantize(experts.3.gate_proj.weight, …_scale_inv, 128×128, bf16))"},
		{dequantized, "dequantize(a, b, all×all, f32)"},
		{scaled, "dequantize(x.weight, ….scale, all×all, bf16)"},
		{must(Concat(-1, w, w)), "concat(-1, w, w)"},
		{must(Concat(0, w, w)), "concat(0, w, w)"},
		{must(Stack(w, w)), "stack(w, w)"},
		{must(Stack(w, w, w, batchEntry(t, batch))), "stack(w, …, experts[0, :, :] × 4)"},
		{must(Reshape(w, 4, 12)), "reshape(w, 4, 12)"},
		{must(Blank(f32, 4, 12)), "zeros(4, 12)"},
		{must(Slice(must(Reshape(w, 4, 12)), 0, 1, 3)), "slice(reshape(w, 4, 12), 0, 1:3)"},
		{must(Transpose(must(Reshape(w, 4, 12)))), "transpose(reshape(w, 4, 12))"},
		{codes, "quantize(w, 128×128, ones)"},
		{scales, "scales(w, 128×128, ones)"},
	} {
		if got := test.n.String(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func batchEntry(t *testing.T, n Node) Node {
	t.Helper()
	e, err := Index(n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSlicesShareTheNodeWhereNothingChanges(t *testing.T) {
	w := mustLoad(t, "w", bf16, 6, 8)
	for name, build := range map[string]func() (Node, error){
		"slice of all":    func() (Node, error) { return Slice(w, 0, 0, 6) },
		"swap of one row": func() (Node, error) { return SwapRows(w, 3, 1) },
		"swap of no rest": func() (Node, error) { return SwapRows(w, 3, 2) },
		"swap and back": func() (Node, error) {
			n, err := SwapRows(w, 1, 2)
			if err != nil {
				return nil, err
			}
			return SwapRows(n, 1, 3)
		},
		"cast to itself":    func() (Node, error) { return Cast(w, bf16) },
		"reshape to itself": func() (Node, error) { return Reshape(w, 6, 8) },
		"concat of one":     func() (Node, error) { return Concat(1, w) },
	} {
		if n, err := build(); err != nil || n != w {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}
