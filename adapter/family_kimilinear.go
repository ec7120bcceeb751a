package adapter

import "slices"

// kimiLinear is Kimi Linear, which has linear attention in most layers. The reference calls its
// model_type kimi_linear_48b_a3b.
var kimiLinear = family{
	name:    "kimi_linear",
	types:   []string{"kimi_linear", "kimi_linear_48b_a3b"},
	plain:   []string{".b_proj.", ".f_a_proj.", ".f_b_proj.", ".g_a_proj.", ".g_b_proj."},
	experts: &expertKeys{path: "block_sparse_moe.experts.", proj: wProj, count: routedExperts},
	views: []view{{
		layout: LayoutNative, path: "mlp.experts.",
		renames: []rename{
			{".block_sparse_moe.gate.", ".mlp.gate."},
			{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."},
			{".self_attn.A_log$", ".self_attn._fp32_params.A_log"},
			{".self_attn.dt_bias$", ".self_attn._fp32_params.dt_bias"},
		},
		float32: []string{"A_log", "dt_bias", "e_score_correction_bias"},
		marks:   []string{".self_attn._fp32_params."},
	}, transformersKimiLinear},
}

// transformersKimiLinear renames only what is in blocks of experts, since the MLPs of the other
// layers are published as they are named in memory.
var transformersKimiLinear = view{
	layout: LayoutTransformers, types: []string{"kimi_linear"}, path: "mlp.experts.",
	marks: kernelMarks,
	steps: []step{joinedKernels(".self_attn.")},
	renames: slices.Concat([]rename{
		{".block_sparse_moe.gate.", ".mlp.gate."},
		{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."},
	}, forgetGate),
}
