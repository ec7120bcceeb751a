package adapter

import (
	"slices"
	"strings"
)

// deepSeekV4 is DeepSeek-V4. Its prediction layers are mtp.0, mtp.1 and so on, or come after the
// model's own layers.
var deepSeekV4 = family{
	name:      "deepseek_v4",
	types:     []string{"deepseek_v4"},
	plain:     deepSeek4Plain,
	experts:   deepSeek4Experts,
	mtpPrefix: predictionPrefix,
	views: []view{{
		layout: LayoutNative, path: "mlp.experts.", mtp: countMTP, mtpPath: predictionPrefix,
		marks: []string{"^mtp.layers."},
		renames: slices.Concat([]rename{
			{"^embed.", "model.embed_tokens."},
			{"^norm.", "model.norm."},
			{"^head.", "lm_head."},
			{"^image_pad$", "model.image_pad"},
			{"^hc_head_fn$", "model.hc_head.hc_fn"},
			{"^hc_head_base$", "model.hc_head.hc_base"},
			{"^hc_head_scale$", "model.hc_head.hc_scale"},
		}, deepSeek4Vision, deepSeekV4Layers, predicted(deepSeekV4Layers), []rename{
			{"^mtp.", "mtp.layers."},
		}),
	}, transformersDeepSeekV4},
}

// deepSeekV4Layers are the renames in layers, the narrower ones first.
var deepSeekV4Layers = []rename{
	{"^layers.*.attn_norm.", "model.layers.*.input_layernorm."},
	{"^layers.*.ffn_norm.", "model.layers.*.post_attention_layernorm."},
	{"^layers.*.attn.attn_sink$", "model.layers.*.self_attn.sinks_param.weight"},
	{
		"^layers.*.attn.indexer.compressor.norm.",
		"model.layers.*.self_attn.compressor.indexer.kv_norm.",
	},
	{
		"^layers.*.attn.indexer.compressor.ape$",
		"model.layers.*.self_attn.compressor.indexer.ape_param.weight",
	},
	{
		"^layers.*.attn.indexer.compressor.wgate.",
		"model.layers.*.self_attn.compressor.indexer.wgate.",
	},
	{
		"^layers.*.attn.indexer.compressor.wkv.",
		"model.layers.*.self_attn.compressor.indexer.wkv.",
	},
	{"^layers.*.attn.indexer.", "model.layers.*.self_attn.compressor.indexer."},
	{"^layers.*.attn.compressor.norm.", "model.layers.*.self_attn.compressor.kv_norm."},
	{"^layers.*.attn.compressor.ape$", "model.layers.*.self_attn.compressor.ape_param.weight"},
	{"^layers.*.attn.", "model.layers.*.self_attn."},
	{"^layers.*.ffn.gate.bias$", "model.layers.*.mlp.gate.e_score_correction_bias"},
	{"^layers.*.ffn.gate.", "model.layers.*.mlp.gate."},
	{"^layers.*.ffn.shared_experts.w1.", "model.layers.*.mlp.shared_experts.gate_proj."},
	{"^layers.*.ffn.shared_experts.w3.", "model.layers.*.mlp.shared_experts.up_proj."},
	{"^layers.*.ffn.shared_experts.w2.", "model.layers.*.mlp.shared_experts.down_proj."},
	{"^layers.*.ffn.fc1_latent_proj.", "model.layers.*.mlp.fc1_latent_proj."},
	{"^layers.*.ffn.fc2_latent_proj.", "model.layers.*.mlp.fc2_latent_proj."},
	{"^layers.*.mlp.experts.", "model.layers.*.mlp.experts."}, // grouped
	{"^layers.*.hc_attn_fn$", "model.layers.*.attn_hc.fn"},
	{"^layers.*.hc_attn_base$", "model.layers.*.attn_hc.base"},
	{"^layers.*.hc_attn_scale$", "model.layers.*.attn_hc.scale"},
	{"^layers.*.hc_ffn_fn$", "model.layers.*.ffn_hc.fn"},
	{"^layers.*.hc_ffn_base$", "model.layers.*.ffn_hc.base"},
	{"^layers.*.hc_ffn_scale$", "model.layers.*.ffn_hc.scale"},
	{"^layers.*.hc_head_fn$", "model.layers.*.hc_head.hc_fn"},
	{"^layers.*.hc_head_base$", "model.layers.*.hc_head.hc_base"},
	{"^layers.*.hc_head_scale$", "model.layers.*.hc_head.hc_scale"},
}

// transformersDeepSeekV4 gives the layers the names of the modules of transformers, and prediction
// layers the same names under their own prefix.
var transformersDeepSeekV4 = view{
	layout: LayoutTransformers, path: "mlp.experts.",
	marks: []string{"^model.layers.*.self_attn.sinks$", "^mtp.*.self_attn.sinks$"},
	prefixes: []rename{
		{"^embed.", "model.embed_tokens."},
		{"^norm.", "model.norm."},
		{"^head.", "lm_head."},
		{"^hc_head_", "model.hc_head.hc_"},
		{"^layers.", "model.layers."},
	},
	renames: slices.Concat([]rename{
		{".attn_norm.", ".input_layernorm."},
		{".ffn_norm.", ".post_attention_layernorm."},
		{".attn.attn_sink$", ".self_attn.sinks"},
		{".attn.indexer.weights_proj.", ".self_attn.compressor.indexer.scorer.weights_proj."},
		{".attn.indexer.wq_b.", ".self_attn.compressor.indexer.q_b_proj."},
		{".attn.indexer.compressor.norm.", ".self_attn.compressor.indexer.kv_norm."},
		{".attn.indexer.compressor.ape$", ".self_attn.compressor.indexer.position_bias"},
		{".attn.indexer.compressor.wkv.", ".self_attn.compressor.indexer.kv_proj."},
		{".attn.indexer.compressor.wgate.", ".self_attn.compressor.indexer.gate_proj."},
		{".attn.compressor.norm.", ".self_attn.compressor.kv_norm."},
		{".attn.compressor.ape$", ".self_attn.compressor.position_bias"},
		{".attn.compressor.wkv.", ".self_attn.compressor.kv_proj."},
		{".attn.compressor.wgate.", ".self_attn.compressor.gate_proj."},
		{".attn.wq_a.", ".self_attn.q_a_proj."},
		{".attn.wq_b.", ".self_attn.q_b_proj."},
		{".attn.wkv.", ".self_attn.kv_proj."},
		{".attn.wo_a.", ".self_attn.o_a_proj."},
		{".attn.wo_b.", ".self_attn.o_b_proj."},
		{".attn.q_norm.", ".self_attn.q_a_norm."},
		{".attn.kv_norm.", ".self_attn.kv_norm."},
		{".ffn.gate.bias$", ".mlp.gate.e_score_correction_bias"},
		{".ffn.shared_experts.w1.", ".mlp.shared_experts.gate_proj."},
		{".ffn.shared_experts.w2.", ".mlp.shared_experts.down_proj."},
		{".ffn.shared_experts.w3.", ".mlp.shared_experts.up_proj."},
		{".ffn.", ".mlp."},
	}, hyperConnections),
}

// predicted returns the renames of layers for the keys of prediction layers.
func predicted(layers []rename) []rename {
	all := make([]rename, len(layers))
	for i, r := range layers {
		all[i] = rename{
			strings.Replace(r.from, "^layers.", "^"+predictionPrefix, 1),
			strings.Replace(r.to, "model.layers.", predictionPrefix+"layers.", 1),
		}
	}
	return all
}

// deepSeekV41 is DeepSeek-V4.1. Its native layout keeps the names of attention and experts.
var deepSeekV41 = family{
	name:      "deepseek_v41",
	types:     []string{"deepseek_v41"},
	inner:     []string{"deepseek_v41_text"},
	plain:     deepSeek4Plain,
	experts:   deepSeek4Experts,
	mtpPrefix: predictionPrefix,
	views: []view{{
		layout: LayoutNative, mtp: dropMTP,
		prefixes: slices.Concat([]rename{
			{"^embed.", "model.embed_tokens."},
			{"^head.", "lm_head."},
			{"^layers.", "model.layers."},
			{"^norm.", "model.norm."},
		}, deepSeek4Vision),
		renames: []rename{
			{".attn.attn_sink$", ".attn.sinks_param.weight"},
			{".ffn.gate.bias$", ".ffn.gate.e_score_correction_bias"},
			{".ffn.shared_experts.w1.", ".ffn.shared_experts.gate_proj."},
			{".ffn.shared_experts.w3.", ".ffn.shared_experts.up_proj."},
			{".ffn.shared_experts.w2.", ".ffn.shared_experts.down_proj."},
			{"^model.layers.*.hc_attn_fn$", "model.layers.*.attn_hc.fn"},
			{"^model.layers.*.hc_attn_base$", "model.layers.*.attn_hc.base"},
			{"^model.layers.*.hc_attn_scale$", "model.layers.*.attn_hc.scale"},
			{"^model.layers.*.hc_ffn_fn$", "model.layers.*.ffn_hc.fn"},
			{"^model.layers.*.hc_ffn_base$", "model.layers.*.ffn_hc.base"},
			{"^model.layers.*.hc_ffn_scale$", "model.layers.*.ffn_hc.scale"},
		},
	}},
}

// deepSeek4Experts names the experts of DeepSeek-V4 and V4.1.
var deepSeek4Experts = &expertKeys{
	path: "ffn.experts.", proj: wProj, count: []string{"n_routed_experts"},
	prefixes: []string{predictionPrefix},
}

// deepSeek4Plain are parts of keys of weights that are published in BF16.
var deepSeek4Plain = []string{
	"embed.", "head.", "vision.", "aligner.", "weights_proj.", ".compressor.wkv.",
	".compressor.wgate.",
}

// deepSeek4Vision are the prefixes of what the models with a vision tower have besides.
var deepSeek4Vision = []rename{
	{"^vision.", "model.vision."},
	{"^aligner.", "model.aligner."},
	{"^image_start$", "model.image_start"},
	{"^image_end$", "model.image_end"},
	{"^image_newline$", "model.image_newline"},
}
