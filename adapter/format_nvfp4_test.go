package adapter

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// fp4 decodes a code of 4 bits by its sign, exponent and mantissa. A zero is always positive.
func fp4(code byte) float32 {
	sign, exp, man := code>>3&1, code>>1&3, float32(code&1)
	v := man / 2
	if exp > 0 {
		v = (1 + man/2) * float32(int(1)<<(exp-1))
	}
	if sign == 1 && v != 0 {
		return -v
	}
	return v
}

// nvfp4Case is a weight of ModelOpt's NVFP4 and where each of its numbers is.
type nvfp4Case struct {
	key, scale     string
	codes, grid    []int64 // as stored
	second         []int64
	shape          []int64                   // of the values
	code, scaleOf  func(e, i, j int64) int64 // the positions of a value's code and scale
	secondOf       func(e int64) int64
	where, version string
}

func alongRow(rows, cols int64) (code, scale func(e, i, j int64) int64) {
	return func(e, i, j int64) int64 { return (e*rows+i)*cols + j },
		func(e, i, j int64) int64 { return (e*rows+i)*(cols/16) + j/16 }
}

// In a column, rows 2k and 2k+1 share the bytes of stored row k.
func alongColumn(rows, cols int64) (code, scale func(e, i, j int64) int64) {
	return func(e, i, j int64) int64 { return ((e*rows/2+i/2)*cols+j)*2 + i%2 },
		func(e, i, j int64) int64 { return (e*(rows/16)+i/16)*cols + j }
}

func nvfp4Cases() map[string]nvfp4Case {
	one := func(int64) int64 { return 0 }
	each := func(e int64) int64 { return e }
	type shape = []int64
	all := map[string]nvfp4Case{}
	add := func(name string, c nvfp4Case, down bool) {
		n := len(c.shape)
		of := alongRow
		if down {
			of = alongColumn
		}
		c.code, c.scaleOf = of(c.shape[n-2], c.shape[n-1])
		all[name] = c
	}
	matrix := nvfp4Case{key: "x.weight", scale: "x.weight_scale", codes: shape{6, 24},
		grid: shape{6, 3}, shape: shape{6, 48}, secondOf: one, where: "groups of 16 in a row"}
	add("a matrix", matrix, false)
	matrix.second = shape{1}
	add("a second scale of one axis", matrix, false)
	matrix.codes, matrix.grid, matrix.shape = shape{1, 8}, shape{1, 1}, shape{1, 16}
	add("one group", matrix, false)
	stack := nvfp4Case{key: "mlp.experts.down_proj", scale: "mlp.experts.down_proj_weight_scale",
		codes: shape{3, 5, 16}, grid: shape{3, 5, 2}, shape: shape{3, 5, 32}, second: shape{3},
		secondOf: each, where: "groups of 16 in a row"}
	add("a stack", stack, false)
	stack.second = shape{3, 1, 1}
	add("a stack with second scales of three axes", stack, false)
	stack.second, stack.secondOf = nil, one
	add("a stack with one second scale", stack, false)
	stack.codes, stack.grid, stack.shape = shape{3, 24, 5}, shape{3, 3, 5}, shape{3, 48, 5}
	stack.where = "groups of 16 in a column"
	add("a stack packed down", stack, true)
	stack.version = "llama4"
	add("Llama 4", stack, true)
	stack.key, stack.scale = "mlp.experts.w13_weight", "mlp.experts.w13_weight_scale"
	add("a stack with its own name", stack, true)
	return all
}

// tensors makes random codes and scales, and the values that they have.
func (c *nvfp4Case) tensors(rng *rand.Rand, dtype string) (
	stored []synth.Tensor, want synth.Tensor,
) {
	codes := random(rng, c.key, "U8", c.codes...)
	scales := random(rng, c.scale, "F8_E4M3", c.grid...)
	second := random(rng, c.scale+"_2", "F32", c.second...)
	copy(codes.Data, []byte{0x80, 0x08, 0xf7}) // the zeros, and the largest
	copy(scales.Data, []byte{0x00, 0x80, 0x01, 0x7e})
	want = synth.Tensor{Name: c.key, DType: dtype, Shape: c.shape}
	f := frameOf(c.shape)
	for e := range f.count {
		for i := range f.rows {
			for j := range f.cols {
				at := c.code(e, i, j)
				code := codes.Data[at/2] >> (at % 2 * 4) & 15
				scale := synth.E4M3(scales.Data[c.scaleOf(e, i, j)]) *
					number32(second, c.secondOf(e))
				want.Data = append(want.Data, synth.Round(dtype, fp4(code)*scale)...)
			}
		}
	}
	return []synth.Tensor{codes, scales, second}, want
}

// Each form of ModelOpt's NVFP4 is compared with two multiplications per element.
func TestNVFP4MultipliesBothScales(t *testing.T) {
	for name, c := range nvfp4Cases() {
		for _, dtype := range []string{"BF16", "F16", "F32"} {
			t.Run(name+" "+dtype, func(t *testing.T) {
				stored, want := c.tensors(rand.New(rand.NewPCG(21, 22)), dtype)
				s := &synth.Checkpoint{Config: map[string]any{"model_type": c.version},
					Tensors: stored}
				// scales of activations go, whatever their shape
				with(s, strings.TrimSuffix(c.scale, "weight_scale")+"input_scale", "F32",
					c.second...)
				o := opened(t, s)
				d := dict(t, o, Options{Layout: "hf", DType: dtypes[dtype]})
				equal(t, d, []synth.Tensor{want})
				for _, a := range d.Plan.Account {
					if used := !strings.HasSuffix(a.Key, "input_scale"); used != (a.Fate == Used) {
						t.Errorf("%s: %s", a.Key, a.Fate)
					}
				}
				counts, err := Summary(o)
				if err != nil || len(counts) != 1 || counts[0].Where != c.where ||
					!strings.Contains(counts[0].Format, "NVFP4") {
					t.Errorf("summary %v, error %v", counts, err)
				}
			})
		}
	}
}

// Tensors that do not make an NVFP4 weight are refused. The error names the tensor and the reason.
func TestNVFP4IsRefused(t *testing.T) {
	type shape = []int64
	const layer = "model.layers.0."
	matrix := []tensor{{"x.weight", "U8", shape{8, 16}}, {"x.weight_scale", "F8_E4M3", shape{8, 2}},
		{"x.weight_scale_2", "F32", nil}}
	const experts = "mlp.experts.gate_up_proj"
	stack := []tensor{{experts, "U8", shape{2, 8, 16}},
		{experts + "_weight_scale", "F8_E4M3", shape{2, 8, 2}},
		{experts + "_weight_scale_2", "F32", shape{2}}}
	for name, test := range map[string]struct {
		config  string
		tensors []tensor
		change  *tensor // another tensor of this key; of no dtype: it is missing
		want    string
	}{
		"groups of 32":               {`{}`, matrix, &tensor{"x.weight_scale", "F8_E4M3", shape{8, 1}}, "x.weight_scale: scales [8 1] for x.weight [8 16]: its [8 32] values with groups of 16 in a row need [8 2]"},
		"scales in a list":           {`{}`, matrix, &tensor{"x.weight_scale", "F8_E4M3", shape{16}}, "x.weight_scale: scales [16]"},
		"padded scales":              {`{}`, matrix, &tensor{"x.weight_scale", "F8_E4M3", shape{128, 4}}, "x.weight_scale: scales [128 4]"},
		"a short group":              {`{}`, matrix, &tensor{"x.weight", "U8", shape{8, 15}}, "x.weight: [8 15] holds the codes [8 30] with groups of 16 in a row: expected"},
		"codes in a list":            {`{}`, matrix, &tensor{"x.weight", "U8", shape{128}}, "x.weight: [128] holds the codes [256] with groups of 16 in a row: expected a matrix"},
		"packed down in a matrix":    {`{}`, matrix, &tensor{"x.weight_scale", "F8_E4M3", shape{1, 16}}, "x.weight_scale: scales [1 16]"},
		"scales of floats":           {`{}`, matrix, &tensor{"x.weight_scale", "BF16", shape{8, 2}}, "x.weight_scale: dtype BF16, expected F8_E4M3"},
		"scales of another format":   {`{}`, append(slices.Clone(matrix), tensor{"x.scale", "F32", shape{8, 2}}), nil, "x.scale: second scale of x.weight beside x.weight_scale"},
		"two second scales":          {`{}`, matrix, &tensor{"x.weight_scale_2", "F32", shape{2}}, "x.weight_scale_2: second scale of shape [2] for x.weight [8 16]: expected one number"},
		"second scales of rows":      {`{}`, matrix, &tensor{"x.weight_scale_2", "F32", shape{8, 1}}, "x.weight_scale_2: second scale of shape [8 1]"},
		"a second scale of bytes":    {`{}`, matrix, &tensor{"x.weight_scale_2", "U8", nil}, "x.weight_scale_2: second scale of dtype U8"},
		"no second scale":            {`{}`, matrix, &tensor{key: "x.weight_scale_2"}, "NVFP4 (ModelOpt) without x.weight_scale_2 beside it"},
		"no scale":                   {`{}`, matrix, &tensor{key: "x.weight_scale"}, "NVFP4 (ModelOpt) without x.weight_scale beside it"},
		"no weight":                  {`{}`, matrix, &tensor{key: "x.weight"}, "without x.weight beside it"},
		"scales for other experts":   {`{}`, stack, &tensor{experts + "_weight_scale", "F8_E4M3", shape{3, 8, 2}}, experts + "_weight_scale: scales [3 8 2]"},
		"second scales of others":    {`{}`, stack, &tensor{experts + "_weight_scale_2", "F32", shape{3}}, "expected one number, or one for each of 2 matrices"},
		"no second scale of a stack": {`{}`, stack, &tensor{key: experts + "_weight_scale_2"}, "NVFP4 (ModelOpt) without " + experts + "_weight_scale_2 beside it"},
		"transposed gpt-oss":         {`{"model_type": "gpt_oss"}`, stack, nil, experts + ": grouped experts of shape [2 8 32], whose inputs are on the last axis"},
		"transposed Llama 4":         {`{"model_type": "llama4", "text_config": {"model_type": "llama4_text"}}`, stack, nil, "inputs are on the last axis"},
		"W4A16_AWQ":                  {`{}`, []tensor{{"x.weight", "U8", shape{8, 256}}, {"x.weight_scale", "BF16", shape{16, 2}}}, nil, "x.weight: INT4 (AWQ of ModelOpt) is not decoded"},
		"W4A8_AWQ":                   {`{}`, []tensor{{"x.weight", "U8", shape{8, 256}}, {"x.weight_scale", "F8_E4M3", shape{16, 2}}, {"x.weight_scale_2", "F32", nil}}, nil, "x.weight: INT4 (AWQ of ModelOpt) is not decoded"},
		"AWQ over experts":           {`{}`, []tensor{{experts, "U8", shape{2, 8, 256}}, {experts + "_weight_scale", "BF16", shape{2, 16, 2}}}, nil, experts + ": INT4 (AWQ of ModelOpt) is not decoded"},
		"transposed Qwen 3.5": {`{"model_type": "qwen3_5_moe"}`, []tensor{
			{experts, "U8", shape{2, 16, 8}},
			{experts + "_weight_scale", "F8_E4M3", shape{2, 2, 8}},
			{experts + "_weight_scale_2", "F32", nil}}, nil,
			experts + ": grouped experts of shape [2 32 8], whose inputs are on the axis before"},
		"in the order of a kernel, as a list": {`{}`, matrix, &tensor{"x.weight_scale", "U8", shape{512}}, "x.weight: a pack with scales in the order of a kernel"},
		"in the order of a kernel":            {`{}`, []tensor{{"x.weight", "U8", shape{8, 16}}, {"x.weight_scale", "U8", shape{512}}}, nil, "x.weight: a pack with scales in the order of a kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseSettings([]byte(test.config))
			if err != nil {
				t.Fatal(err)
			}
			c := &synth.Checkpoint{Config: s}
			for _, x := range test.tensors {
				if test.change != nil && test.change.key == x.key {
					x = *test.change
				}
				if x.dtype != "" {
					with(c, layer+x.key, x.dtype, x.shape...)
				}
			}
			_, err = NewPlan(opened(t, c), Options{Layout: "hf"})
			if err == nil ||
				!strings.Contains(strings.ReplaceAll(err.Error(), layer, ""), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// Experts in NVFP4 beside FP8 and plain weights: the tensors decide, whatever the configuration
// says of some of them.
func TestNVFP4BesideOtherFormats(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	c := nvfp4Cases()["a matrix"]
	for _, config := range []string{
		`{}`, `{"quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"x": {"quant_algo": "FP8"}, "y": {"quant_algo": "NVFP4", "group_size": 16}}}}`,
		`{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}`,
	} {
		s, err := parseSettings([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		stored, want := c.tensors(rng, "BF16")
		codes := random(rng, "y.weight", "F8_E4M3", 4, 8)
		scale := random(rng, "y.scale", "F32", 1, 1)
		plain := random(rng, "z.weight", "BF16", 4, 8)
		all := append(slices.Clone(stored), codes, scale, plain)
		equal(t, dict(t, opened(t, &synth.Checkpoint{Config: s, Tensors: all}),
			Options{Layout: "hf"}), []synth.Tensor{want,
			values(codes, func(_, _ int64) float32 { return number32(scale, 0) }), plain})
	}
}

// Algorithms of ModelOpt that change the weights of a layer are refused in every file that names
// them, even if every tensor could be decoded.
func TestAlgorithmsThatChangeWeightsAreRefused(t *testing.T) {
	c := nvfp4Cases()["a matrix"]
	stored, _ := c.tensors(rand.New(rand.NewPCG(25, 26)), "BF16")
	for _, algorithm := range []string{"NVFP4_AWQ", "NVFP4_SVD", "W4A16_AWQ", "W4A8_AWQ"} {
		for name, test := range map[string]struct{ config, beside, want string }{
			"config.json":    {`{"quantization_config": {"quant_method": "modelopt", "quant_algo": "` + algorithm + `"}}`, `{}`, "config.json: quant_algo"},
			"another method": {`{"quantization_config": {"quant_method": "modelopt_fp4", "quant_algo": "` + algorithm + `"}}`, `{}`, "config.json: quant_algo"},
			"its own file": {`{}`, `{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "` + algorithm + `"}}`,
				"hf_quant_config.json: quant_algo"},
			"one layer": {`{}`, `{"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"y": {"quant_algo": "FP8"}, "z": {"quant_algo": "` + algorithm + `"}}}}`,
				"hf_quant_config.json: quantized_layers: z: quant_algo"},
		} {
			s := sourceOf(t, test.config, stored...)
			s.Side = map[string][]byte{"hf_quant_config.json": []byte(test.beside)}
			_, err := NewPlan(opened(t, s), Options{Layout: "hf"})
			if err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), algorithm) {
				t.Errorf("%s in %s: error %v", algorithm, name, err)
			}
		}
	}
}

// Grouped experts in NVFP4 are cut, merged and transposed like the plain weights that they hold,
// for each rank too.
func TestLayoutsOfGroupedNVFP4EqualThoseOfThePlainModel(t *testing.T) {
	type shape = []int64
	const p = "model.layers.0.mlp.experts."
	for name, test := range map[string]struct {
		config       string
		down         bool // the direction of the codes
		gateUp, outs shape
	}{
		"qwen3_5_moe": {`{"model_type": "qwen3_5_moe", "num_experts": 3, "num_hidden_layers": 1, "moe_intermediate_size": 16}`,
			false, shape{3, 32, 48}, shape{3, 48, 16}},
		"gpt_oss": {`{"model_type": "gpt_oss", "num_local_experts": 3, "num_hidden_layers": 1, "intermediate_size": 16}`,
			true, shape{3, 48, 32}, shape{3, 16, 48}},
	} {
		rng := rand.New(rand.NewPCG(27, 28))
		var stored, plain []synth.Tensor
		for key, s := range map[string]shape{
			p + "gate_up_proj": test.gateUp, p + "down_proj": test.outs,
		} {
			c := nvfp4Case{key: key, scale: key + "_weight_scale", shape: s, second: shape{3},
				secondOf: func(e int64) int64 { return e }}
			c.codes, c.grid = shape{3, s[1], s[2] / 2}, shape{3, s[1], s[2] / 16}
			c.code, c.scaleOf = alongRow(s[1], s[2])
			if test.down {
				c.codes, c.grid = shape{3, s[1] / 2, s[2]}, shape{3, s[1] / 16, s[2]}
				c.code, c.scaleOf = alongColumn(s[1], s[2])
			}
			x, want := c.tensors(rng, "BF16")
			stored, plain = append(stored, x...), append(plain, want)
		}
		packed := opened(t, sourceOf(t, test.config, stored...))
		same := opened(t, sourceOf(t, test.config, plain...))
		for _, layout := range Layouts(packed) {
			for rank := range 3 {
				o := Options{Layout: layout, EP: EP{Rank: rank, Size: 3}}
				if layout == LayoutHF {
					o.EP = EP{}
				}
				var want []synth.Tensor
				for l := range dict(t, same, o).All() {
					want = append(want, synth.Tensor{Name: l.Name(), DType: l.DType().String(),
						Shape: l.Shape(), Data: content(t, l)})
				}
				t.Run(name+" "+layout, func(t *testing.T) { equal(t, dict(t, packed, o), want) })
			}
		}
	}
}
