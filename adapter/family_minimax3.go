package adapter

// miniMaxM3 is the language model of MiniMax-M3.
var miniMaxM3 = miniMaxM3Family("minimax_m3")

// miniMaxM3VL is MiniMax-M3 with its vision tower.
var miniMaxM3VL = func() family {
	f := miniMaxM3Family("minimax_m3_vl",
		rename{"^language_model.model.", "model."},
		rename{"^language_model.lm_head.", "lm_head."},
		rename{"^multi_modal_projector.", "vision_tower.multi_modal_projector."},
		rename{"^patch_merge_mlp.", "vision_tower.patch_merge_mlp."},
	)
	f.views = append(f.views, transformersMiniMaxM3)
	return f
}()

// miniMaxM3Family is MiniMax-M3 under a model_type. prefixes rename its parts in the native layout.
func miniMaxM3Family(name string, prefixes ...rename) family {
	return family{
		name:  name,
		types: []string{name},
		inner: []string{"minimax_m3", "minimax_m2", "minimax_m3_vl_text"},
		plain: []string{".index_q_proj.", ".index_k_proj.", "patch_merge_mlp."},
		experts: &expertKeys{
			path: "block_sparse_moe.experts.", proj: wProj, count: []string{"num_local_experts"},
			prefixes: []string{
				"model.mtp.", "language_model.model.mtp.", "model.language_model.mtp.",
			},
		},
		mtpBlock: "transformer_layer.",
		views: []view{{
			layout: LayoutNative, path: "mlp.experts.", mtp: anyMTP, prefixes: prefixes,
			renames: []rename{
				{".block_sparse_moe.gate.weight", ".mlp.gate.weight"},
				{".block_sparse_moe.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"},
				{".block_sparse_moe.shared_experts.", ".shared_experts."},
				{".self_attn.index_", ".self_attn.indexer.index_"},
			},
		}},
	}
}

// transformersMiniMaxM3 joins gate and up of shared experts and of layers without experts.
var transformersMiniMaxM3 = view{
	layout: LayoutTransformers, path: "mlp.experts.", marks: []string{"^model.language_model."},
	steps: []step{joined{fused{
		from: ".gate_up_proj.weight", to: []string{".gate_proj.weight", ".up_proj.weight"},
		rows: equalParts(2),
	}}},
	prefixes: []rename{
		{"^language_model.lm_head.", "lm_head."},
		{"^language_model.model.", "model.language_model."},
		{
			"^vision_tower.vision_model.embeddings.patch_embedding.",
			"model.vision_tower.embeddings.proj.",
		},
		{"^vision_tower.vision_model.encoder.layers.", "model.vision_tower.layers."},
		{"^vision_tower.vision_model.pre_layrnorm.", "model.vision_tower.pre_layrnorm."},
		{"^patch_merge_mlp.linear_", "model.multi_modal_projector.merge_linear_"},
		{"^multi_modal_projector.", "model.multi_modal_projector."},
	},
	renames: []rename{
		{".block_sparse_moe.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias"},
		{".block_sparse_moe.gate.", ".mlp.gate."},
		{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."},
		{".self_attn.index_q_proj.", ".self_attn.indexer.q_proj."},
		{".self_attn.index_k_proj.", ".self_attn.indexer.k_proj."},
		{".self_attn.index_q_norm.", ".self_attn.indexer.q_norm."},
		{".self_attn.index_k_norm.", ".self_attn.indexer.k_norm."},
	},
}
