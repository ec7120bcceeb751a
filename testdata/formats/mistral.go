package formats

import "fmt"

// mistral lists the formats of Mistral.
func mistral() []Case {
	return []Case{
		{"Mistral FP8", mistralFP8},
		{"Mistral-Small-4", mistralSmall4},
		{"Mistral's own layout", mistralOwn},
	}
}

// mistralConfig has no block size, so each weight has one scale.
func (b *builder) mistralConfig() {
	b.quantization(map[string]any{"quant_method": "fp8", "activation_scheme": "static",
		"weight_block_size": nil, "modules_to_not_convert": []string{"lm_head"}})
}

// mistralFP8 has one scale for each weight, and one for its inputs.
func mistralFP8(b *builder) {
	b.mistralConfig()
	for i, dtype := range []string{"BF16", "F32"} {
		module := fmt.Sprintf("model.layers.%d.self_attn.q_proj", i)
		fp8Whole(b, module+".weight", module+".weight_scale_inv", dtype, []int64{1, 9}[i],
			[]int64{40, 33}[i])
		b.codes(module+".activation_scale", dtype)
	}
}

// mistralSmall4 has grouped experts with one scale each.
func mistralSmall4(b *builder) {
	b.mistralConfig()
	for i, name := range []string{"gate_up_proj", "down_proj"} {
		const experts = 11
		m, n := []int64{12, 7}[i], []int64{7, 6}[i]
		key := "model.language_model.layers.0.mlp.experts." + name
		codes := b.codes(key, "F8_E4M3", experts, m, n)
		scales := b.scales(key+"_scale_inv", "BF16", experts, 1, 1)
		b.codes(key+"_activation_scale", "BF16", experts)
		b.show(key, codes.Shape, func(e, i, j int64) float32 {
			return product(number(codes, (e*m+i)*n+j), number(scales, e))
		})
	}
}

// mistralOwn has params.json in the place of config.json. One of its layers has no scale of
// activations, as under NO_SCALES.
func mistralOwn(b *builder) {
	b.consolidated = true
	b.Config = nil
	b.side("params.json", map[string]any{"dim": 40, "n_layers": 2,
		"quantization": map[string]any{"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}})
	for i, dtype := range []string{"BF16", "F32"} {
		module := fmt.Sprintf("layers.%d.attention.wq", i)
		fp8Whole(b, module+".weight", module+".qscale_weight", dtype, []int64{1, 9}[i],
			[]int64{40, 33}[i])
		if i == 0 {
			b.codes(module+".qscale_act", dtype)
		}
	}
	b.codes("layers.0.attention.k_fake_quantizer.qscale_act", "BF16")
	b.pass("norm.weight", "BF16", 40)
}
