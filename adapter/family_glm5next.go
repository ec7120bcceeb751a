package adapter

import "slices"

// glm5Next is GLM-5-Next: a vision tower, and a language model with linear attention in most layers
// and several residual streams.
var glm5Next = family{
	name:  "glm5_next",
	types: []string{"glm5_next", "glm5_next_text"},
	plain: []string{
		".q_proj.", ".k_proj.", ".v_proj.", ".kv_b_proj.", ".b_proj.", ".f_a_proj.", ".f_b_proj.",
		".g_a_proj.", ".g_b_proj.", ".indexer.",
	},
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutNative, mtp: dropAfter, types: []string{"glm5_next"},
		renames: []rename{
			{glm5Layer + "hc_attn_fn$", glm5NativeLayer + "attn_hc.fn"},
			{glm5Layer + "hc_attn_base$", glm5NativeLayer + "attn_hc._fp32_params.base"},
			{glm5Layer + "hc_attn_scale$", glm5NativeLayer + "attn_hc._fp32_params.scale"},
			{glm5Layer + "hc_ffn_fn$", glm5NativeLayer + "ffn_hc.fn"},
			{glm5Layer + "hc_ffn_base$", glm5NativeLayer + "ffn_hc._fp32_params.base"},
			{glm5Layer + "hc_ffn_scale$", glm5NativeLayer + "ffn_hc._fp32_params.scale"},
			{glm5Layer + "self_attn.A_log$", glm5NativeLayer + "self_attn._fp32_params.A_log"},
			{glm5Layer + "self_attn.dt_bias$", glm5NativeLayer + "self_attn._fp32_params.dt_bias"},
		},
		float32: []string{
			"._fp32_params.A_log", "._fp32_params.dt_bias", ".e_score_correction_bias",
		},
		marks: []string{"._fp32_params."},
	}, transformersGLM5Next},
}

// The beginnings of the keys of a layer, as a rename has them.
const (
	glm5Layer       = "^" + glm5NativeLayer
	glm5NativeLayer = "model.language_model.layers.*."
)

// transformersGLM5Next has each layer's kernels of query, key and value in one tensor.
var transformersGLM5Next = view{
	layout:  LayoutTransformers,
	marks:   append([]string{".attn_hc.base$", ".ffn_hc.base$"}, kernelMarks...),
	steps:   []step{joinedKernels(".self_attn.")},
	renames: slices.Concat(forgetGate, hyperConnections),
}
