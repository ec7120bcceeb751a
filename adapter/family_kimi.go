package adapter

import "fmt"

// kimiK25 is Kimi K2.5, K2.6 and K2.7: a vision tower and a language model like DeepSeek-V3.
var kimiK25 = family{
	name:    "kimi_k25",
	types:   []string{"kimi_k25"},
	inner:   []string{"kimi_k2", "deepseek_v3"},
	larger:  []string{".weight"},
	experts: mlpExperts("n_routed_experts"),
	views: []view{{layout: LayoutNative, castAll: true, prefixes: []rename{
		{"^language_model.", "model.language_model."},
		{"^mm_projector.proj.0.", "model.multi_modal_projector.linear_1."},
		{"^mm_projector.proj.2.", "model.multi_modal_projector.linear_2."},
		{"^mm_projector.", "model.multi_modal_projector."},
		{"^multi_modal_projector.", "model.multi_modal_projector."},
		{"^vision_tower.", "model.vision_tower."},
	}}, transformersKimiK25, titanKimi},
}

// transformersKimiK25 takes apart the fused matrices of the vision tower.
var transformersKimiK25 = view{
	layout: LayoutTransformers, lacks: noVisionHeads,
	marks: []string{"^model.vision_tower.layers."}, // any of them, since a shard may hold few
	steps: visionQKV(".wqkv.", ".attn."),
	prefixes: []rename{
		{"^language_model.model.", "model.language_model."},
		{"^language_model.lm_head.", "lm_head."},
		{"^mm_projector.proj.0.", "model.mm_projector.in_proj."},
		{"^mm_projector.proj.2.", "model.mm_projector.out_proj."},
		{"^mm_projector.", "model.mm_projector."},
		{"^vision_tower.encoder.blocks.*.norm0.", "model.vision_tower.layers.*.norm1."},
		{"^vision_tower.encoder.blocks.*.norm1.", "model.vision_tower.layers.*.norm2."},
		{"^vision_tower.encoder.blocks.*.mlp.fc0.", "model.vision_tower.layers.*.mlp.fc1."},
		{"^vision_tower.encoder.blocks.*.mlp.fc1.", "model.vision_tower.layers.*.mlp.fc2."},
		{"^vision_tower.encoder.blocks.*.wo.", "model.vision_tower.layers.*.attn.proj."},
		{"^vision_tower.encoder.blocks.", "model.vision_tower.layers."},
		{
			"^vision_tower.patch_embed.pos_emb.weight$",
			"model.vision_tower.patch_embed.pos_emb.position_embeddings",
		},
		{"^vision_tower.patch_embed.", "model.vision_tower.patch_embed."},
		{"^vision_tower.encoder.", "model.vision_tower."},
	},
}

// kimiK3 is Kimi K3, whose language model has linear attention in most layers.
var kimiK3 = family{
	name:  "kimi_k3",
	types: []string{"kimi_k3"},
	inner: []string{"kimi_linear"},
	experts: &expertKeys{
		path: "block_sparse_moe.experts.", proj: wProj, count: []string{"num_experts"},
	},
	views: []view{{
		layout: LayoutNative, path: "mlp.experts.",
		prefixes: []rename{
			{"^language_model.model.", "model."}, {"^language_model.lm_head.", "lm_head."},
		},
		renames: []rename{
			{".block_sparse_moe.gate.", ".mlp.gate."},
			{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."},
			{".block_sparse_moe.routed_expert_down_proj.", ".mlp.routed_expert_down_proj."},
			{".block_sparse_moe.routed_expert_up_proj.", ".mlp.routed_expert_up_proj."},
			{".block_sparse_moe.routed_expert_norm.", ".mlp.routed_expert_norm."},
			{".self_attn.A_log$", kimiK3Log},
			{".self_attn.dt_bias$", ".self_attn._fp32_params.dt_bias"},
			{".self_attn.q_conv1d.weight$", ".self_attn.q_conv1d._fp32_params.weight"},
			{".self_attn.k_conv1d.weight$", ".self_attn.k_conv1d._fp32_params.weight"},
			{".self_attn.v_conv1d.weight$", ".self_attn.v_conv1d._fp32_params.weight"},
			{".self_attn.o_norm.weight$", ".self_attn.o_norm._fp32_params.weight"},
		},
		float32: []string{
			"A_log", "dt_bias", "e_score_correction_bias", "o_norm.weight", "q_conv1d.weight",
			"k_conv1d.weight", "v_conv1d.weight", "._fp32_params.weight",
		},
		padded: []padded{{name: kimiK3Log, size: kimiK3Heads, multiple: 128}},
	}},
}

// kimiK3Log ends the key of the decay of each head in the native layout. Published checkpoints fill
// it up to a multiple of 128.
const kimiK3Log = ".self_attn._fp32_params.A_log"

// kimiK3Heads returns the number of heads with a decay.
func kimiK3Heads(s settings) (int64, error) {
	n, ok := s.object("linear_attn_config").integer("num_heads")
	if !ok || n < 0 {
		return 0, fmt.Errorf("config.json: linear_attn_config has no num_heads, " +
			"which says how many values belong to a head")
	}
	return int64(n), nil
}
