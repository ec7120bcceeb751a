package adapter

// inkling is Inkling with its audio and vision towers. The rows of gate and up alternate in its
// matrices, and stay so in the native layout. So gate and up are never taken apart.
var inkling = family{
	name:  "inkling",
	types: []string{"inkling_mm_model"},
	inner: []string{"inkling_text"},
	plain: []string{"embed.", "model.audio.", ".rel_logits_proj.", ".mlp.gate."},
	experts: &expertKeys{
		path: "mlp.experts.", count: []string{"n_routed_experts"}, grouped: LayoutHF,
		groups: []group{
			{name: "w13_weight", parts: []role{gate, up}},
			{name: "w2_weight", parts: []role{down}},
		},
		prefixes: []string{"model.llm."},
		whole:    "the rows of gate and up alternate in it",
	},
	views: []view{{
		layout: LayoutNative, empty: true, mtp: dropMTP,
		steps: []step{turned{cast: true, ends: []string{
			".mlp.shared_experts.shared_w13_weight", ".mlp.shared_experts.shared_w2_weight",
			".mlp.w13_dn.weight", ".mlp.w2_md.weight",
		}}},
		prefixes: []rename{
			{"^model.llm.embed.weight$", "model.language_model.embed_tokens.weight"},
			{"^model.llm.embed_norm.weight$", "model.language_model.embed_norm.weight"},
			{"^model.llm.norm.weight$", "model.language_model.norm.weight"},
			{"^model.llm.unembed.weight$", "lm_head.weight"},
			{"^model.llm.layers.", "model.language_model.layers."},
			{
				"^model.audio.encoder.weight$",
				"model.audio_tower.embed_audio_tokens.embed_audio_tokens.weight",
			},
			{"^model.audio.final_norm.weight$", "model.audio_tower.norm.weight"},
			{
				"^model.visual.layers.linear_*.weight$",
				"model.vision_tower.encoder_layers.*.projection.weight",
			},
			{
				"^model.visual.layers.norm_*.weight$",
				"model.vision_tower.encoder_layers.*.layer_norm.weight",
			},
			{"^model.visual.final_norm.weight$", "model.vision_tower.final_norm.weight"},
		},
		renames: []rename{
			{".attn.wq_du.weight$", ".self_attn.q_proj.weight"},
			{".attn.wk_dv.weight$", ".self_attn.k_proj.weight"},
			{".attn.wv_dv.weight$", ".self_attn.v_proj.weight"},
			{".attn.wr_du.weight$", ".self_attn.r_proj.weight"},
			{".attn.wo_ud.weight$", ".self_attn.o_proj.weight"},
			{".attn.q_norm.weight$", ".self_attn.q_norm.weight"},
			{".attn.k_norm.weight$", ".self_attn.k_norm.weight"},
			{".attn.k_sconv.weight$", ".self_attn.k_sconv._fp32_params.weight"},
			{".attn.v_sconv.weight$", ".self_attn.v_sconv._fp32_params.weight"},
			{".attn.rel_logits_proj.proj$", ".self_attn.rel_logits_proj.proj"},
			{".attn_sconv.weight$", ".attn_sconv._fp32_params.weight"},
			{".mlp_sconv.weight$", ".mlp_sconv._fp32_params.weight"},
			{".attn_norm.weight$", ".input_layernorm.weight"},
			{".mlp_norm.weight$", ".post_attention_layernorm.weight"},
			{".mlp.shared_experts.shared_w13_weight$", ".mlp.shared_experts.gate_up_proj"},
			{".mlp.shared_experts.shared_w2_weight$", ".mlp.shared_experts.down_proj"},
			{".mlp.w13_dn.weight$", ".mlp.gate_up_proj"},
			{".mlp.w2_md.weight$", ".mlp.down_proj"},
			{".mlp.gate.bias$", ".mlp.gate._fp32_params.e_score_correction_bias"},
		},
	}},
}
