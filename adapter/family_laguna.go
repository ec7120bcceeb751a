package adapter

// laguna is Laguna. Its router's bias has a key below the experts, and is none of them.
var laguna = family{
	name:    "laguna",
	types:   []string{"laguna"},
	experts: mlpExperts("num_experts"),
	views: []view{
		{layout: LayoutNative, renames: lagunaRenames}, transformersWith(lagunaRenames...),
	},
}

// lagunaRenames are the same in every layout that groups the experts.
var lagunaRenames = []rename{
	{".mlp.shared_expert.", ".mlp.shared_experts."},
	{".mlp.experts.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias"},
}
