package adapter

import (
	"fmt"
	"reflect"
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

// schemeUnder returns the scheme of a weight under a quantization_config.
func schemeUnder(t *testing.T, config, key string) *scheme {
	t.Helper()
	q, err := readQuantization(&Checkpoint{}, configured(t, config))
	if err != nil {
		t.Fatal(err)
	}
	return q.floats.schemeOf(key)
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

func TestScalesLieWhereShapeAndConfigurationSay(t *testing.T) {
	type shape = []int64
	rows, cols, whole := [2]int64{1, 0}, [2]int64{0, 1}, [2]int64{}
	for _, test := range []struct {
		name          string
		config        string
		weight, scale shape
		block         [2]int64
	}{
		{"blocks", block128, shape{300, 200}, shape{3, 2}, [2]int64{128, 128}},
		{"blocks of 128 without configuration", noConfig, shape{300, 200}, shape{3, 2}, [2]int64{128, 128}},
		{"blocks of 64 without configuration", noConfig, shape{300, 200}, shape{5, 4}, [2]int64{64, 64}},
		{"groups of 32 without configuration", noConfig, shape{300, 200}, shape{300, 7}, [2]int64{1, 32}},
		{"DeepSeek's kv_a_proj", block128, shape{576, 7168}, shape{5, 56}, [2]int64{128, 128}},
		{"other blocks", block50, shape{300, 200}, shape{12, 4}, [2]int64{25, 50}},
		{"block_structure", ctBlock, shape{65, 64}, shape{2, 2}, [2]int64{64, 32}},
		{"block_structure as text", ctBlockOld, shape{130, 64}, shape{2, 1}, [2]int64{128, 128}},
		{"groups", ctGroup, shape{300, 200}, shape{300, 4}, [2]int64{1, 64}},
		{"one block", block128, shape{1, 1}, shape{1, 1}, [2]int64{128, 128}},
		{"scalar", perTensor, shape{300, 200}, shape{}, whole},
		{"[1]", perTensor, shape{300, 200}, shape{1}, whole},
		{"[1,1]", perTensor, shape{300, 200}, shape{1, 1}, whole},
		{"scalar under blocks", block128, shape{300, 200}, shape{}, whole},
		{"[1,1] under blocks", block128, shape{300, 200}, shape{1, 1}, whole},
		{"[M]", ctChannel, shape{300, 200}, shape{300}, rows},
		{"[M,1]", ctChannel, shape{300, 200}, shape{300, 1}, rows},
		{"[M,1] without configuration", noConfig, shape{300, 200}, shape{300, 1}, rows},
		{"[M] of a square", noConfig, shape{200, 200}, shape{200}, rows},
		{"[ceil(M/128),1] is a grid, not rows", block128, shape{300, 100}, shape{3, 1}, [2]int64{128, 128}},
		{"[M,1] under blocks is rows", block128, shape{300, 100}, shape{300, 1}, rows},
		{"[M,1] under blocks, wider than a block", block128, shape{300, 200}, shape{300, 1}, rows},
		{"[1,M,1] of a square under groups", ctGroup, shape{64, 64}, shape{1, 64, 1}, rows},
		{"as many rows as a grid has", block128, shape{3, 200}, shape{3, 1}, rows},
		{"one row", block128, shape{1, 100}, shape{1, 1}, [2]int64{128, 128}},
		{"rows of a mixture", ctMixed, shape{300, 200}, shape{300, 1}, rows},
		{"rows of a mixture, one block wide", ctMixed, shape{300, 100}, shape{300, 1}, rows},
		{"blocks of a mixture", ctMixed, shape{300, 200}, shape{3, 2}, [2]int64{128, 128}},
		{"columns", noConfig, shape{300, 200}, shape{1, 200}, cols},
		{"ModelOpt's [m,1,n,1]", noConfig, shape{300, 200}, shape{3, 1, 2, 1}, [2]int64{128, 128}},
		{"[M,n,1]", noConfig, shape{300, 200}, shape{300, 4, 1}, [2]int64{1, 64}},
		{"stack, scalar each [E,1,1]", perTensor, shape{4, 30, 20}, shape{4, 1, 1}, whole},
		{"stack, scalar each [E]", perTensor, shape{4, 30, 20}, shape{4}, whole},
		{"stack, rows [E,M]", ctChannel, shape{4, 30, 20}, shape{4, 30}, rows},
		{"stack, rows [E,M,1]", ctChannel, shape{4, 30, 20}, shape{4, 30, 1}, rows},
		{"stack, columns [E,N]", ctChannel, shape{4, 30, 20}, shape{4, 20}, cols},
		{"stack, columns [E,1,N]", ctChannel, shape{4, 30, 20}, shape{4, 1, 20}, cols},
		{"stack, blocks", block128, shape{4, 300, 200}, shape{4, 3, 2}, [2]int64{128, 128}},
		{"no rows, one scale", perTensor, shape{0, 20}, shape{}, whole},
		{"no columns, one scale", perTensor, shape{20, 0}, shape{1}, whole},
		{"a stack of nothing, one scale each", perTensor, shape{3, 0, 4}, shape{3}, whole},
		{"vector with one scale", block128, shape{300}, shape{1}, whole},
		{"convolution with one scale", perTensor, shape{8, 3, 14, 14}, shape{}, whole},
		{"convolution with a scale for each output", noConfig, shape{8, 3, 14, 14}, shape{8, 1, 1, 1}, rows},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := findPartition(test.weight, test.scale,
				schemeUnder(t, test.config, "x.weight"), fusion{}, false)
			if err != nil {
				t.Fatal(err)
			}
			if f := frameOf(test.weight); !f.same(p, partition{block: test.block}) || p.shared {
				t.Errorf("%v, want blocks of %v", p, test.block)
			}
		})
	}
}

func TestScalesThatDoNotFitAreRefused(t *testing.T) {
	type shape = []int64
	for _, test := range []struct {
		name          string
		config        string
		weight, scale shape
		want          string
	}{
		{"too few rows", block128, shape{300, 200}, shape{2, 2}, "blocks of 128 × 128 [3 2]"},
		{"too few columns", block128, shape{300, 200}, shape{3, 1}, "blocks of 128 × 128 [3 2]"},
		{"padded grid", block128, shape{300, 200}, shape{8, 2}, "blocks of 128 × 128 [3 2]"},
		{"padded grid without configuration", noConfig, shape{300, 200}, shape{8, 4}, "blocks of 64 × 64 [5 4]"},
		{"blocks of another size than configured", block128, shape{300, 200}, shape{5, 4}, "contradict"},
		{"list of columns", noConfig, shape{300, 200}, shape{200}, "one scale per matrix [1 1], per row [300 1], per column [1 200]"},
		{"stack of another size", block128, shape{4, 300, 200}, shape{3, 3, 2}, "[4 3 2]"},
		{"one list for all of a stack", noConfig, shape{4, 300, 200}, shape{300}, "[4 300 1]"},
		{"empty", block128, shape{300, 200}, shape{0}, "[3 2]"},
		{"a scale for each element of a vector", block128, shape{300}, shape{300}, "one scale per matrix"},
		{"stack of squares, rows or columns", noConfig, shape{4, 30, 30}, shape{4, 30}, "one scale per row, or one scale per column"},
		{"stack of squares of a channel strategy", ctChannel, shape{4, 30, 30}, shape{4, 30}, "one scale per row, or one scale per column"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := findPartition(test.weight, test.scale,
				schemeUnder(t, test.config, "x.weight"), fusion{}, false)
			if err == nil {
				t.Fatalf("%v, want an error", p)
			}
			for _, want := range []string{test.want, fmt.Sprint(test.weight),
				fmt.Sprint(test.scale)} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestScalesOfOtherDTypesAreRefused(t *testing.T) {
	for _, test := range []struct {
		dtype safetensors.DType
		shape []int64
		want  string
	}{
		{safetensors.I32, []int64{3, 2}, "I32"},
		{safetensors.F64, []int64{3, 2}, "F64"},
		{safetensors.F8E4M3, []int64{3, 2}, "F8_E4M3"},
		{safetensors.U8, []int64{6}, "swizzled"},
		{safetensors.U8, []int64{3, 2}, ""},
		{safetensors.U8, []int64{1}, ""},
		{safetensors.F8E8M0, []int64{3, 2}, ""},
	} {
		err := checkScale(stored("x.weight_scale", test.dtype, test.shape...))
		if (err == nil) != (test.want == "") ||
			err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: error %v, want %q", test.dtype, test.shape, err, test.want)
		}
	}
}

// A larger grid is read from the top left only for the families whose reference does so.
func TestLargerGridsAreForSomeFamilies(t *testing.T) {
	s := schemeUnder(t, block128, "x.weight")
	for _, test := range []struct {
		weight, scale []int64
		larger, ok    bool
	}{
		{[]int64{300, 200}, []int64{8, 2}, true, true},
		{[]int64{300, 200}, []int64{8, 4}, true, true},
		{[]int64{300, 200}, []int64{8, 2}, false, false},
		{[]int64{300, 200}, []int64{2, 4}, true, false},
		{[]int64{300, 200}, []int64{3, 2}, true, true},
		{[]int64{300, 100}, []int64{300, 1}, true, false},     // rows, or a larger grid
		{[]int64{300, 200}, []int64{4, 1, 2, 1}, true, false}, // other axes do not make a larger grid
	} {
		if p, err := findPartition(test.weight, test.scale, s, fusion{},
			test.larger); (err == nil) != test.ok {
			t.Errorf("%v over %v, larger %t: %v, error %v",
				test.scale, test.weight, test.larger, p, err)
		}
	}
	both := &scheme{blocks: [][2]int64{{128, 128}, {64, 64}}}
	for _, test := range []struct {
		weight []int64
		ok     bool
	}{{[]int64{300, 200}, false}, {[]int64{60, 50}, true}} {
		if p, err := findPartition(test.weight, []int64{12, 12}, both, fusion{},
			true); (err == nil) != test.ok {
			t.Errorf("a larger grid over %v in blocks of 128 or of 64: %v, error %v",
				test.weight, p, err)
		}
	}
	var none *family
	if none.takesLarger("x.weight") {
		t.Error("a family that is not known takes larger grids")
	}
}

func TestPartsOfFusedMatricesComeFromTheConfiguration(t *testing.T) {
	heads := settings{"num_attention_heads": 8.0, "num_key_value_heads": 2.0, "head_dim": 50.0,
		"intermediate_size": 200.0}
	s := &scheme{blocks: [][2]int64{{128, 128}}}
	for _, test := range []struct {
		name, key     string
		config        settings
		weight, scale []int64
		want          string // "": refused
	}{
		{"whole", "x.qkv_proj.weight", heads, []int64{600, 200}, []int64{5, 2}, "blocks of 128 × 128"},
		{"each part its own grid", "x.qkv_proj.weight", heads, []int64{600, 200}, []int64{6, 2}, "blocks of 128 × 128 in each of 3 parts"},
		{"each part one scale", "x.qkv_proj.weight", heads, []int64{600, 200}, []int64{3}, "one scale per part of 3"},
		{"neither", "x.qkv_proj.weight", heads, []int64{600, 200}, []int64{7, 2}, ""},
		{"without configuration", "x.qkv_proj.weight", nil, []int64{600, 200}, []int64{6, 2}, ""},
		{"not fused", "x.k_proj.weight", heads, []int64{600, 200}, []int64{6, 2}, ""},
		{"gate and up apart", "x.gate_up_proj.weight", settings{"intermediate_size": 150.0}, []int64{300, 200}, []int64{4, 2}, "blocks of 128 × 128 in each of 2 parts"},
		{"gate and up, either way", "x.gate_up_proj.weight", heads, []int64{400, 200}, []int64{4, 2}, ""},
		{"gate and up, either way, a block each", "x.gate_up_proj.weight", settings{"intermediate_size": 100.0}, []int64{200, 100}, []int64{2, 1}, ""},
		{"gate and up without configuration", "x.gate_up_proj.weight", nil, []int64{300, 200}, []int64{4, 2}, ""},
		{"gate and up, multiples of a block", "x.gate_up_proj.weight", nil, []int64{512, 200}, []int64{4, 2}, "blocks of 128 × 128"},
	} {
		p, err := findPartition(test.weight, test.scale, s,
			test.config.fusionOf(test.key, test.weight), false)
		if (err == nil) != (test.want != "") || err == nil && p.String() != test.want {
			t.Errorf("%s: %v, error %v, want %q", test.name, p, err, test.want)
		}
	}
}

func TestBlocksThatAreNoneAreRefused(t *testing.T) {
	for _, block := range []string{`[0, 128]`, `[128, -1]`, `[0.5, 128]`, `[128]`, `[1, 2, 3]`,
		`["128", "128"]`, `"128"`, `128`, `[1e10, 1]`, `{}`} {
		q, err := readQuantization(&Checkpoint{}, configured(t, `{"weight_block_size": `+block+`}`))
		if err == nil || !strings.Contains(err.Error(), "config.json: weight_block_size") {
			t.Errorf("%s: %+v, error %v", block, q, err)
		}
	}
}

func TestConfigurationsOfEveryDialect(t *testing.T) {
	type blocks = [][2]int64
	for _, test := range []struct {
		name, config, key string
		want              scheme
	}{
		{"nothing", noConfig, "x.weight", scheme{}},
		{"blocks", block128, "x.weight", scheme{blocks: blocks{{128, 128}}}},
		{"no blocks", perTensor, "x.weight", scheme{tensor: true}},
		{"static", `{"quant_method": "fp8", "activation_scheme": "static"}`, "x.weight", scheme{tensor: true}},
		{"neither", `{"quant_method": "fp8", "activation_scheme": "dynamic"}`, "x.weight", scheme{}},
		{"mxfp8", `{"quant_method": "mxfp8"}`, "x.weight", scheme{blocks: blocks{{1, 32}}}},
		{"FBGEMM", `{"quant_method": "fbgemm_fp8"}`, "x.weight", scheme{channel: true}},
		{"ModelOpt FP8", `{"quant_method": "modelopt", "quant_algo": "FP8"}`, "x.weight", scheme{tensor: true}},
		{"ModelOpt rows", `{"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}`, "x.weight", scheme{channel: true}},
		{"ModelOpt MXFP8", `{"quant_algo": "MXFP8"}`, "x.weight", scheme{blocks: blocks{{1, 32}}}},
		{"ModelOpt blocks", `{"quant_algo": "FP8_PB_WO"}`, "x.weight", scheme{}},
		{"ModelOpt blocks of a size", `{"quant_algo": "FP8_PB_WO", "group_size": 64}`, "x.weight", scheme{blocks: blocks{{64, 64}, {1, 64}}}},
		{"ModelOpt mixture", modelOptMixed, "a.b.weight", scheme{tensor: true}},
		{"ModelOpt mixture, below a prefix", modelOptMixed, "c.d.e.weight", scheme{blocks: blocks{{1, 32}}}},
		{"ModelOpt mixture, by pattern", modelOptMixed, "f.1.g.weight", scheme{channel: true}},
		{"ModelOpt mixture, other", modelOptMixed, "h.weight", scheme{}},
		{"targets by pattern", ctTargets, "a.mlp.up.weight", scheme{blocks: blocks{{128, 128}}, unordered: true}},
		{"targets that overlap", ctTargets, "a.mlp.attn.weight", scheme{blocks: blocks{{128, 128}, {64, 64}}, unordered: true}},
		{"ignored", ctTargets, "a.mlp.gate.weight", scheme{}},
		{"not a target", ctTargets, "b.weight", scheme{}},
		{"ignored by pattern", ctTargets, "c.weight", scheme{}},
		{"a pattern that only Python reads", ctPython, "c.weight", scheme{blocks: blocks{{128, 128}}, unordered: true}},
		{"ignored by a class", ctIgnored(`"Embedding"`), "x.weight", scheme{blocks: blocks{{256, 256}}, unordered: true}},
		{"ignored by a pattern that only Python reads", ctIgnored(`"re:(?!.*mlp).*"`), "x.mlp.weight", scheme{blocks: blocks{{256, 256}}, unordered: true}},
		{"ignored by name too", ctIgnored(`"Embedding", "x"`), "x.weight", scheme{}},
		{"integers", `{"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}}}`, "x.weight", scheme{}},
	} {
		if got := *schemeUnder(t, test.config, test.key); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

const (
	ctGroup       = `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"strategy": "group", "group_size": 64}}}}`
	modelOptMixed = `{"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {
		"a.b": {"quant_algo": "FP8"}, "c.d": {"quant_algo": "MXFP8", "group_size": 32}, "f.*.g": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}}}}`
	ctPython = `{"quant_method": "compressed-tensors", "config_groups": {
		"y": {"targets": ["re:a(?!b)"], "weights": {"strategy": "block", "block_structure": [128, 128]}}}}`
	ctTargets = `{"quant_method": "compressed-tensors", "ignore": ["a.mlp.gate", "re:c.*"], "config_groups": {
		"z": {"targets": ["re:.*attn"], "weights": {"strategy": "block", "block_structure": [64, 64]}},
		"x": {"targets": ["re:a\\..*", "other"], "weights": {"strategy": "block", "block_structure": [128, 128]}}}}`
)

// Mixtures name tens of thousands of layers. The cost of a weight must not grow with their number.
func TestLayersThatAreDescribedAlikeShareARule(t *testing.T) {
	layers := map[string]any{}
	for i := range 300 {
		layers[fmt.Sprintf("model.layers.%d.mlp", i)] = map[string]any{"quant_algo": "FP8"}
		layers[fmt.Sprintf("model.layers.%d.self_attn.q_proj",
			i)] = map[string]any{"quant_algo": "MXFP8", "group_size": 32.0}
		layers[fmt.Sprintf("model.layers.%d.self_attn.o*", i)] = map[string]any{"quant_algo": "FP8"}
	}
	rules, err := readModelOpt(settings{"quant_algo": "MIXED_PRECISION",
		"quantized_layers": layers})
	if err != nil || len(rules) != 2 {
		t.Fatalf("%d rules, error %v: want 2", len(rules), err)
	}
	q := &ruleSet{rules: rules}
	q.settle()
	for key, want := range map[string]scheme{
		"model.layers.7.mlp.weight":                     {tensor: true},
		"model.layers.299.mlp.experts.3.up_proj.weight": {tensor: true},
		"model.layers.29.self_attn.q_proj.weight":       {blocks: [][2]int64{{1, 32}}},
		"model.layers.7.self_attn.o_proj.weight":        {tensor: true},
		"model.layers.300.mlp.weight":                   {},
		"model.layers.7.mlps.weight":                    {},
		"model.layers.7.self_attn.q_projection.weight":  {},
		"x.model.layers.7.mlp.experts.3.up_proj.weight": {},
	} {
		if got := *q.schemeOf(key); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
	}
}

// A few letters of a pattern can be a large program. A pattern beyond the budget matches
// everything, and so does one that only Python can read.
func TestPatternsBeyondABudgetMatchEverything(t *testing.T) {
	list := func(n int, pattern string) (all []any) {
		for i := range n {
			all = append(all, fmt.Sprintf("re:%s%d$", pattern, i))
		}
		return all
	}
	for name, test := range map[string]struct {
		list []any
		all  bool
	}{
		"hundreds of the usual":      {list(500, `.*layers\.7\..*proj`), false},
		"more of them":               {list(2000, `.*layers\.7\..*proj`), true},
		"repeated":                   {list(1000, `.{900}`), true},
		"long":                       {[]any{"re:" + strings.Repeat("a", 5000)}, true},
		"that only Python can read":  {[]any{"re:(?!a)"}, true},
		"beyond what is compiled":    {[]any{"re:(((a{1000}){1000}){1000})"}, true},
		"names, however many, count": {slices.Repeat([]any{"model.a"}, 100_000), false},
	} {
		left := maxInstructions
		if got := readTargets(test.list, &left).match("x"); got != test.all {
			t.Errorf("%s: matches %t, want %t", name, got, test.all)
		}
	}
}

// ctIgnored has blocks that the scales alone do not decide, with exceptions.
func ctIgnored(ignore string) string {
	return `{"quant_method": "compressed-tensors", "ignore": [` + ignore +
		`], "config_groups": {"a": {"targets": ["Linear"],
		"weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [256, 256]}}}}`
}
