package adapter

// miniMaxM3 is the language model of MiniMax-M3.
var miniMaxM3 = miniMaxM3Family("minimax_m3")

// miniMaxM3VL is MiniMax-M3 with its vision tower.
var miniMaxM3VL = miniMaxM3Family("minimax_m3_vl",
	rename{"^language_model.model.", "model."},
	rename{"^language_model.lm_head.", "lm_head."},
	rename{"^multi_modal_projector.", "vision_tower.multi_modal_projector."},
	rename{"^patch_merge_mlp.", "vision_tower.patch_merge_mlp."},
)

// miniMaxM3Family is MiniMax-M3 under a model_type. prefixes rename its parts in the native layout.
func miniMaxM3Family(name string, prefixes ...rename) family {
	return family{
		name:  name,
		types: []string{name},
		inner: []string{"minimax_m3", "minimax_m2", "minimax_m3_vl_text"},
		plain: []string{".index_q_proj.", ".index_k_proj.", "patch_merge_mlp."},
		experts: &expertKeys{
			path: "block_sparse_moe.experts.", proj: wProj, count: []string{"num_local_experts"},
			prefixes: []string{"model.mtp.", "language_model.model.mtp."},
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
