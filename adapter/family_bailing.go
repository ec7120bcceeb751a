package adapter

// sarvamMoe is Sarvam with experts, which has the fused matrix of Ling.
var sarvamMoe = family{
	name: "sarvam_moe", types: []string{"sarvam_moe"},
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers,
		steps:  []step{queryKeyValue("weight"), queryKeyValue("bias")},
		renames: []rename{
			{"^model.word_embeddings.", "model.embed_tokens."},
			{".attention.dense.", ".self_attn.o_proj."},
			{".attention.query_layernorm.", ".self_attn.q_norm."},
			{".attention.key_layernorm.", ".self_attn.k_norm."},
			{".attention.", ".self_attn."},
			{".mlp.gate.expert_bias$", ".mlp.gate.e_score_correction_bias"},
		},
	}},
}

// queryKeyValue takes apart the fused weights or biases of query, key and value.
func queryKeyValue(kind string) step {
	return fused{
		from: ".attention.query_key_value." + kind,
		to: []string{
			".attention.q_proj." + kind, ".attention.k_proj." + kind, ".attention.v_proj." + kind,
		},
		rows: queryKeyValueRows,
	}
}

// bailingHybrid is Ling 2.5, which has linear attention in most layers.
var bailingHybrid = family{
	name: "bailing_hybrid", types: []string{"bailing_hybrid"},
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers, marks: kernelMarks,
		steps: []step{joinedKernels(".attention.")},
		renames: []rename{
			{"^model.word_embeddings.", "model.embed_tokens."},
			{".attention.dense.", ".self_attn.o_proj."},
			{".attention.f_proj.", ".self_attn.forget_gate.f_proj."},
			{".attention.dt_bias$", ".self_attn.forget_gate.dt_bias"},
			{".attention.A_log$", ".self_attn.forget_gate.A_log"},
			{".attention.", ".self_attn."},
			{".mlp.gate.expert_bias$", ".mlp.gate.e_score_correction_bias"},
		},
	}},
}
