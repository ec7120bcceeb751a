package adapter

import "slices"

// mistralLarge4 is Mistral Large 4, which is published under Mistral's own names.
var mistralLarge4 = family{
	name: "mistral_large4", types: []string{"mistral_large4"},
	inner:   []string{"mistral_large4_text"},
	experts: &expertKeys{path: "experts.", proj: wProj, count: routedExperts},
	views:   []view{transformersMistralLarge4},
}

// transformersMistralLarge4 gives the rows of query and key of the vision tower another order.
var transformersMistralLarge4 = view{
	layout: LayoutTransformers, path: "mlp.experts.", lacks: noVisionHeads,
	marks: []string{"^model.language_model."},
	steps: []step{swapped{
		under: "vision_encoder.",
		ends:  []string{".attention.wq.weight", ".attention.wk.weight"},
		heads: visionHeads,
	}},
	prefixes: slices.Concat([]rename{
		{"^tok_embeddings.", "model.language_model.embed_tokens."},
		{"^lerope.alpha$", "model.language_model.rotary_emb.alpha"},
		{"^norm.", "model.language_model.norm."},
		{"^output.", "lm_head."},
		{"^pre_mm_projector_norm.", "model.multi_modal_projector.norm."},
		{"^patch_merger.", "model.multi_modal_projector.patch_merger."},
		{"^vision_language_adapter.w_in.", "model.multi_modal_projector.linear_1."},
		{"^vision_language_adapter.w_out.", "model.multi_modal_projector.linear_2."},
	}, mistralLarge4Vision, mistralLarge4Layers),
}

// mistralLarge4Layers are the renames in the layers of the language model.
var mistralLarge4Layers = []rename{
	{"^layers.*.attention_norm.", "model.language_model.layers.*.input_layernorm."},
	{"^layers.*.ffn_norm.", "model.language_model.layers.*.post_attention_layernorm."},
	{
		"^layers.*.attention.indexer.ssmax_scaling.s$",
		"model.language_model.layers.*.self_attn.indexer.softmax_scaling.scale",
	},
	{
		"^layers.*.attention.indexer.ssmax_scaling.b$",
		"model.language_model.layers.*.self_attn.indexer.softmax_scaling.bias",
	},
	{
		"^layers.*.attention.ssmax_scaling.s$",
		"model.language_model.layers.*.self_attn.softmax_scaling.scale",
	},
	{
		"^layers.*.attention.ssmax_scaling.b$",
		"model.language_model.layers.*.self_attn.softmax_scaling.bias",
	},
	{"^layers.*.attention.wq.", "model.language_model.layers.*.self_attn.q_proj."},
	{
		"^layers.*.attention.wkv_a_with_mqa.",
		"model.language_model.layers.*.self_attn.kv_a_proj_with_mqa.",
	},
	{"^layers.*.attention.kv_a_norm.", "model.language_model.layers.*.self_attn.kv_a_layernorm."},
	{"^layers.*.attention.wkv_b.", "model.language_model.layers.*.self_attn.kv_b_proj."},
	{"^layers.*.attention.wo.", "model.language_model.layers.*.self_attn.o_proj."},
	{"^layers.*.attention.", "model.language_model.layers.*.self_attn."},
	{"^layers.*.feed_forward.w1.", "model.language_model.layers.*.mlp.gate_proj."},
	{"^layers.*.feed_forward.w2.", "model.language_model.layers.*.mlp.down_proj."},
	{"^layers.*.feed_forward.w3.", "model.language_model.layers.*.mlp.up_proj."},
	{"^layers.*.gate.", "model.language_model.layers.*.mlp.gate."},
	{"^layers.*.shared_experts.w1.", "model.language_model.layers.*.mlp.shared_experts.gate_proj."},
	{"^layers.*.shared_experts.w2.", "model.language_model.layers.*.mlp.shared_experts.down_proj."},
	{"^layers.*.shared_experts.w3.", "model.language_model.layers.*.mlp.shared_experts.up_proj."},
	{"^layers.", "model.language_model.layers."},
}

// mistralLarge4Vision are the renames in the vision tower.
var mistralLarge4Vision = []rename{
	{
		"^vision_encoder.transformer.layers.*.attention.wq.",
		"model.vision_tower.transformer.layers.*.attention.q_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.attention.wk.",
		"model.vision_tower.transformer.layers.*.attention.k_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.attention.wv.",
		"model.vision_tower.transformer.layers.*.attention.v_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.attention.wo.",
		"model.vision_tower.transformer.layers.*.attention.o_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.feed_forward.w1.",
		"model.vision_tower.transformer.layers.*.feed_forward.gate_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.feed_forward.w2.",
		"model.vision_tower.transformer.layers.*.feed_forward.down_proj.",
	},
	{
		"^vision_encoder.transformer.layers.*.feed_forward.w3.",
		"model.vision_tower.transformer.layers.*.feed_forward.up_proj.",
	},
	{"^vision_encoder.", "model.vision_tower."},
}
