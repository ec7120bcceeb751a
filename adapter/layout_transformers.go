package adapter

import "errors"

// routedExperts are the fields that give the number of experts in configurations that transformers
// writes. Which of them a configuration has depends on the model_type. All mean the same.
var routedExperts = []string{"num_experts", "n_routed_experts", "num_local_experts"}

// transformersWith is the layout transformers of families whose modules differ from published
// checkpoints only by the experts and these names.
func transformersWith(renames ...rename) view {
	return view{layout: LayoutTransformers, renames: renames}
}

// transformersMLP is the layout of models whose block of experts is named "mlp" in memory and
// "block_sparse_moe" as published.
var transformersMLP = view{layout: LayoutTransformers, path: "mlp.experts.", renames: []rename{
	{".block_sparse_moe.", ".mlp."},
}}

// joinedKernels joins the kernels of the convolutions over query, key and value, which have the
// same number of channels.
func joinedKernels(attention string) step {
	return joined{fused{
		from: attention + "conv1d.weight",
		to: []string{
			attention + "q_conv1d.weight", attention + "k_conv1d.weight",
			attention + "v_conv1d.weight",
		},
		rows: equalParts(3),
	}}
}

// forgetGate renames the parameters of a decay, which are in a module of their own.
var forgetGate = []rename{
	{".self_attn.f_a_proj.", ".self_attn.forget_gate.f_a_proj."},
	{".self_attn.f_b_proj.", ".self_attn.forget_gate.f_b_proj."},
	{".self_attn.dt_bias$", ".self_attn.forget_gate.dt_bias"},
	{".self_attn.A_log$", ".self_attn.forget_gate.A_log"},
}

// hyperConnections renames the parameters of hyper-connections around attention and MLP.
var hyperConnections = []rename{
	{".hc_attn_fn$", ".attn_hc.fn"},
	{".hc_attn_base$", ".attn_hc.base"},
	{".hc_attn_scale$", ".attn_hc.scale"},
	{".hc_ffn_fn$", ".ffn_hc.fn"},
	{".hc_ffn_base$", ".ffn_hc.base"},
	{".hc_ffn_scale$", ".ffn_hc.scale"},
}

// kernelMarks are keys that only the layout transformers of models with these modules has.
var kernelMarks = []string{".self_attn.forget_gate.", ".self_attn.conv1d.weight$"}

// visionQKV takes apart the fused query, key and value of a vision tower. It gives the rows of
// query and key the order that transformers turns. from is the end of the fused key without
// "weight" or "bias", and to is what begins the names of the parts.
func visionQKV(from, to string) []step {
	return append(fusedQKV("", from, to), swapped{
		ends: []string{
			to + "q_proj.weight", to + "k_proj.weight", to + "q_proj.bias", to + "k_proj.bias",
		},
		heads: visionHeads,
	})
}

// fusedQKV takes apart the fused query, key and value of keys with a beginning.
func fusedQKV(under, from, to string) (steps []step) {
	for _, kind := range []string{"weight", "bias"} {
		f := fused{under: under, from: from + kind, rows: equalParts(3)}
		for _, part := range []string{"q_proj.", "k_proj.", "v_proj."} {
			f.to = append(f.to, to+part+kind)
		}
		steps = append(steps, f)
	}
	return steps
}

// visionHeadFields give the number of attention heads in vision_config. The second and third are
// those of Kimi and Step.
var visionHeadFields = []string{"num_attention_heads", "vt_num_attention_heads", "heads"}

// visionHeads reads the number of attention heads of the vision tower.
func visionHeads(s settings) (int64, error) {
	n, ok := s.object("vision_config").integer(visionHeadFields...)
	if !ok || n < 1 {
		return 0, errors.New("config.json: " + noVisionHeads(s))
	}
	return int64(n), nil
}

// noVisionHeads says that the number of attention heads of the vision tower is unknown.
func noVisionHeads(s settings) string {
	if n, ok := s.object("vision_config").integer(visionHeadFields...); ok && n > 0 {
		return ""
	}
	return "vision_config has no num_attention_heads, which tells which rows belong to a head"
}
