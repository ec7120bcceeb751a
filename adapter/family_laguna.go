package adapter

// laguna is Laguna. Its router's bias has a key below the experts, and is none of them.
var laguna = family{
	name:    "laguna",
	types:   []string{"laguna"},
	experts: mlpExperts("num_experts"),
	views: []view{
		{layout: LayoutNative, renames: lagunaNames}, transformersWith(lagunaNames...),
	},
}

// lagunaNames are the names of the router and of the shared experts in memory.
var lagunaNames = []rename{
	{".mlp.shared_expert.", ".mlp.shared_experts."},
	{".mlp.experts.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias"},
}
