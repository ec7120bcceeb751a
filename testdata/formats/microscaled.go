package formats

import "fmt"

// gptOSS lists the format of gpt-oss.
func gptOSS() []Case { return []Case{{"gpt-oss MXFP4", gptOSSExperts}} }

func gptOSSConfig(b *builder) {
	b.quantization(map[string]any{"quant_method": "mxfp4",
		"modules_to_not_convert": []string{"model.layers.*.self_attn", "lm_head"}})
}

// gptOSSExperts has layers of one, of three and of eleven experts.
func gptOSSExperts(b *builder) {
	gptOSSConfig(b)
	gptOSSLayer(b, 0, 1, [2]int64{2, 14}, [2]int64{1, 1})
	gptOSSLayer(b, 1, 3, [2]int64{6, 1}, [2]int64{3, 2})
	gptOSSLayer(b, 2, 11, [2]int64{26, 9}, [2]int64{2, 1})
	b.pass("model.layers.0.self_attn.sinks", "BF16", 4)
}

// gptOSSLayer has experts that are stored by output rows and shown by input rows. rows and blocks
// are those of gate_up_proj and of down_proj.
func gptOSSLayer(b *builder, layer int, experts int64, rows, blocks [2]int64) {
	for i, name := range []string{"gate_up_proj", "down_proj"} {
		rows, blocks := rows[i], blocks[i]
		key := fmt.Sprintf("model.layers.%d.mlp.experts.%s", layer, name)
		codes := b.codes(key+"_blocks", "U8", experts, rows, blocks, 16)
		scales := b.scales(key+"_scales", "U8", experts, rows, blocks)
		b.pass(key+"_bias", "BF16", experts, rows)
		b.show(key, []int64{experts, 32 * blocks, rows}, func(e, n, m int64) float32 {
			at := (e*rows+m)*blocks + n/32
			return product(e2m1(low(codes.Data, at*32+n%32)), number(scales, at))
		})
	}
}

// microscaled lists the formats with exponents that are known by the maker of the model.
func microscaled() []Case {
	return []Case{
		{"MiniMax-M3 MXFP8", miniMaxM3},
		{"Quark MXFP4", quarkMXFP4},
		{"Quark FP8", quarkFP8},
		{"FBGEMM FP8", fbgemm},
	}
}

func miniMaxConfig(b *builder) {
	b.quantization(map[string]any{"quant_method": "mxfp8", "activation_scheme": "dynamic",
		"fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": []int64{1, 32},
		"ignored_layers": []string{"lm_head"}})
}

// miniMaxM3 has groups that are cut off at the right end.
func miniMaxM3(b *builder) {
	miniMaxConfig(b)
	for i, n := range []int64{32, 33, 100, 224} {
		module := fmt.Sprintf("language_model.model.layers.%d.mlp.up_proj", i)
		blocks(b, module+".weight", "F8_E4M3", module+".weight_scale_inv", "U8",
			[]int64{1, 3, 8, 5}[i], n, 1, 32)
	}
}

// quarkConfig describes all weights alike. Its pack_method says nothing about MXFP4.
func (b *builder) quarkConfig(weight map[string]any) {
	b.quantization(map[string]any{"quant_method": "quark", "quant_mode": "eager_mode",
		"export": map[string]any{"pack_method": "reorder",
			"weight_format": "real_quantized"},
		"global_quant_config": map[string]any{"weight": weight, "bias": nil},
		"exclude":             []string{"lm_head"}})
}

func quarkMXFP4(b *builder) {
	b.quarkConfig(map[string]any{"dtype": "fp4", "qscheme": "per_group", "group_size": 32,
		"ch_axis": -1, "scale_format": "e8m0"})
	for i, m := range []int64{1, 3, 8, 25} {
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		mxfp4(b, module+".weight", module+".weight_scale", module+".weight", m,
			32*[]int64{1, 4, 3, 2}[i])
	}
}

// quarkFP8 has one scale for a weight, and one for each row.
func quarkFP8(b *builder) {
	b.quarkConfig(map[string]any{"dtype": "fp8_e4m3", "qscheme": "per_tensor"})
	fp8Whole(b, "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scale",
		"F32", 7, 40)
	rowsFP8(b, "model.layers.1.mlp.up_proj", 9, 20, 9)
}

// fbgemm has scales of [M, 1].
func fbgemm(b *builder) {
	b.quantization(map[string]any{"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0})
	rowsFP8(b, "model.layers.1.mlp.up_proj", 9, 20, 9, 1)
}

// rowsFP8 adds a matrix of E4M3 with a scale for each row.
func rowsFP8(b *builder, module string, m, n int64, scaleShape ...int64) {
	codes := b.codes(module+".weight", "F8_E4M3", m, n)
	scales := b.scales(module+".weight_scale", "F32", scaleShape...)
	b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
		return product(number(codes, m*n+j), number(scales, m))
	})
}
