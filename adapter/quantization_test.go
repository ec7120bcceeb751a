package adapter

import (
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// stored makes a stored tensor without data.
func stored(key string, d safetensors.DType, shape ...int64) *Stored {
	return &Stored{Source: expr.Source{Key: key, DType: d, Shape: shape}, Shard: "a.safetensors"}
}

// configured parses a config.json with a quantization_config.
func configured(t *testing.T, quantization string) settings {
	t.Helper()
	s, err := parseSettings([]byte(`{"quantization_config": ` + quantization + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func configuredQuantization(t *testing.T, config string) quantization {
	t.Helper()
	q, err := quantizationOf(configured(t, config))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

const (
	noConfig   = `{}`
	block128   = `{"quant_method": "fp8", "weight_block_size": [128, 128]}`
	block50    = `{"quant_method": "fp8", "weight_block_size": [25, 50]}`
	perTensor  = `{"quant_method": "fp8", "weight_block_size": null, "activation_scheme": "static"}`
	ctBlock    = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"strategy": "block", "block_structure": [64, 32]}}}}`
	ctBlockOld = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"strategy": "block", "block_structure": "128x128"}}}}`
	ctChannel  = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"strategy": "channel"}}}}`
	ctMixed    = `{"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"strategy": "channel"}}, "b": {"weights": {"strategy": "block", "block_structure": [128, 128]}}}}`
)

func TestGridsAreToldByShapeAndConfiguration(t *testing.T) {
	type shape = []int64
	for _, test := range []struct {
		name          string
		config        string
		weight, scale shape
		grid          shape // of the answer
		block         [2]int64
	}{
		{"blocks", block128, shape{300, 200}, shape{3, 2}, shape{3, 2}, [2]int64{128, 128}},
		{"blocks by default", noConfig, shape{300, 200}, shape{3, 2}, shape{3, 2}, [2]int64{128, 128}},
		{"DeepSeek's kv_a_proj", block128, shape{576, 7168}, shape{5, 56}, shape{5, 56}, [2]int64{128, 128}},
		{"padded grid", block128, shape{300, 200}, shape{8, 2}, shape{8, 2}, [2]int64{128, 128}},
		{"padded grid by default", noConfig, shape{300, 200}, shape{8, 4}, shape{8, 4}, [2]int64{128, 128}},
		{"other blocks", block50, shape{300, 200}, shape{12, 4}, shape{12, 4}, [2]int64{25, 50}},
		{"block_structure", ctBlock, shape{65, 64}, shape{2, 2}, shape{2, 2}, [2]int64{64, 32}},
		{"block_structure as text", ctBlockOld, shape{130, 64}, shape{2, 1}, shape{2, 1}, [2]int64{128, 128}},
		{"one block", block128, shape{1, 1}, shape{1, 1}, shape{1, 1}, [2]int64{128, 128}},
		{"scalar", perTensor, shape{300, 200}, shape{}, shape{1, 1}, [2]int64{}},
		{"[1]", perTensor, shape{300, 200}, shape{1}, shape{1, 1}, [2]int64{}},
		{"[1,1]", perTensor, shape{300, 200}, shape{1, 1}, shape{1, 1}, [2]int64{}},
		{"scalar under blocks", block128, shape{300, 200}, shape{}, shape{1, 1}, [2]int64{}},
		{"[M]", ctChannel, shape{300, 200}, shape{300}, shape{300, 1}, [2]int64{1, 0}},
		{"[M,1]", ctChannel, shape{300, 200}, shape{300, 1}, shape{300, 1}, [2]int64{1, 0}},
		{"[M,1] without configuration", noConfig, shape{300, 200}, shape{300, 1}, shape{300, 1}, [2]int64{1, 0}},
		{"[ceil(M/128),1] is a grid, not rows", block128, shape{300, 100}, shape{3, 1}, shape{3, 1}, [2]int64{128, 128}},
		{"[M,1] under blocks is a padded grid, not rows", block128, shape{300, 100}, shape{300, 1}, shape{300, 1}, [2]int64{128, 128}},
		{"one row", block128, shape{1, 100}, shape{1, 1}, shape{1, 1}, [2]int64{128, 128}},
		{"rows of a mixture", ctMixed, shape{300, 200}, shape{300, 1}, shape{300, 1}, [2]int64{1, 0}},
		{"rows of a mixture, one block wide", ctMixed, shape{300, 100}, shape{300, 1}, shape{300, 1}, [2]int64{1, 0}},
		{"blocks of a mixture", ctMixed, shape{300, 200}, shape{3, 2}, shape{3, 2}, [2]int64{128, 128}},
		{"ModelOpt's [m,1,n,1]", noConfig, shape{300, 200}, shape{3, 1, 2, 1}, shape{3, 2}, [2]int64{128, 128}},
		{"stack, scalar each [E,1,1]", perTensor, shape{4, 30, 20}, shape{4, 1, 1}, shape{4, 1, 1}, [2]int64{}},
		{"stack, scalar each [E]", perTensor, shape{4, 30, 20}, shape{4}, shape{4, 1, 1}, [2]int64{}},
		{"stack, rows [E,M]", ctChannel, shape{4, 30, 20}, shape{4, 30}, shape{4, 30, 1}, [2]int64{1, 0}},
		{"stack, rows [E,M,1]", ctChannel, shape{4, 30, 20}, shape{4, 30, 1}, shape{4, 30, 1}, [2]int64{1, 0}},
		{"stack, blocks", block128, shape{4, 300, 200}, shape{4, 3, 2}, shape{4, 3, 2}, [2]int64{128, 128}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := stored("x.weight", safetensors.F8E4M3, test.weight...)
			s := stored("x.weight_scale_inv", safetensors.F32, test.scale...)
			g, err := configuredQuantization(t, test.config).grid(w, s)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(g.shape, test.grid) || g.block != test.block {
				t.Errorf("grid %v of blocks %v, want %v of %v", g.shape, g.block, test.grid, test.block)
			}
		})
	}
}

func TestGridsThatDoNotFitAreRefused(t *testing.T) {
	type shape = []int64
	for _, test := range []struct {
		name          string
		config        string
		weight, scale shape
		dtype         safetensors.DType
		want          string
	}{
		{"too few rows", block128, shape{300, 200}, shape{2, 2}, safetensors.F32, "at least [3 2]"},
		{"too few columns", block128, shape{300, 200}, shape{3, 1}, safetensors.F32, "at least [3 2]"},
		{"rows of a grid are not rows", block128, shape{3, 200}, shape{3, 1}, safetensors.F32, "at least [1 2]"},
		{"one per row under blocks", block128, shape{300, 200}, shape{300, 1}, safetensors.F32, "at least [3 2]"},
		{"one per column", noConfig, shape{300, 200}, shape{1, 200}, safetensors.F32, "at least [3 2]"},
		{"[1,1] under blocks", block128, shape{300, 200}, shape{1, 1}, safetensors.F32, "at least [3 2]"},
		{"stack of another size", block128, shape{4, 300, 200}, shape{3, 3, 2}, safetensors.F32, "at least [4 3 2]"},
		{"empty", block128, shape{300, 200}, shape{0}, safetensors.F32, "at least [3 2]"},
		{"vector", block128, shape{300}, shape{3}, safetensors.F32, "expected a matrix"},
		{"stack of squares, rows or columns", noConfig, shape{4, 30, 30}, shape{4, 30}, safetensors.F32, "rows or columns"},
		{"integers", block128, shape{300, 200}, shape{3, 2}, safetensors.I32, "I32"},
		{"bytes", block128, shape{300, 200}, shape{3, 2}, safetensors.U8, "MXFP8"},
		{"codes", block128, shape{300, 200}, shape{3, 2}, safetensors.F8E4M3, "F8_E4M3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := stored("x.weight", safetensors.F8E4M3, test.weight...)
			s := stored("x.weight_scale_inv", test.dtype, test.scale...)
			g, err := configuredQuantization(t, test.config).grid(w, s)
			if err == nil {
				t.Fatalf("grid %v, want an error", g)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
		})
	}
}

// The grid of a fused matrix may be one grid behind another, which a larger one looks like.
func TestGridsOfFusedPartsAreRefused(t *testing.T) {
	q := configuredQuantization(t, block128)
	for _, test := range []struct {
		key   string
		scale []int64
		ok    bool
	}{
		{"x.qkv_proj.weight", []int64{3, 2}, true},
		{"x.qkv_proj.weight", []int64{4, 2}, false},
		{"x.k_proj.weight", []int64{4, 2}, true},
	} {
		_, err := q.grid(stored(test.key, safetensors.F8E4M3, 300, 200), stored(test.key+"_scale_inv", safetensors.F32, test.scale...))
		if (err == nil) != test.ok {
			t.Errorf("%s with grid %v: error %v", test.key, test.scale, err)
		}
	}
}

func TestBlocksThatAreNoneAreRefused(t *testing.T) {
	for _, block := range []string{`[0, 128]`, `[128, -1]`, `[0.5, 128]`, `[128]`, `[1, 2, 3]`, `["128", "128"]`, `"128"`, `128`, `[1e10, 1]`, `{}`} {
		q, err := quantizationOf(configured(t, `{"weight_block_size": `+block+`}`))
		if err == nil || !strings.Contains(err.Error(), "weight_block_size") {
			t.Errorf("%s: blocks %v, error %v", block, q.block, err)
		}
	}
}
