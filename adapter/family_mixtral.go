package adapter

// mixtral is Mixtral and MiniMax-Text.
var mixtral = family{
	name: "mixtral", types: []string{"mixtral", "minimax"},
	experts: mixtralExperts,
	views:   []view{transformersMLP},
}

// phimoe is Phi-3.5-MoE.
var phimoe = family{
	name: "phimoe", types: []string{"phimoe"},
	experts: mixtralExperts,
	views: []view{{layout: LayoutTransformers, path: "mlp.experts.", renames: []rename{
		{".block_sparse_moe.gate.weight$", ".mlp.router.weight"},
		{".block_sparse_moe.", ".mlp."},
	}}},
}

// mixtralExperts is how Mixtral names its experts.
var mixtralExperts = &expertKeys{
	path: "block_sparse_moe.experts.", proj: wProj, count: routedExperts,
}

// graniteMoe is Granite 3 and 4 with experts, which are published grouped.
var graniteMoe = family{
	name: "granitemoe", types: []string{"granitemoe", "granitemoeshared", "granitemoehybrid"},
	experts: &expertKeys{
		path: "block_sparse_moe.experts.", proj: mlpProj, count: routedExperts,
		grouped: LayoutHF, groupPath: "block_sparse_moe.",
		groups: []group{
			{name: "input_linear.weight", parts: []role{gate, up}},
			{name: "output_linear.weight", parts: []role{down}},
		},
	},
	views: []view{transformersWith(
		rename{".block_sparse_moe.router.layer.weight$", ".block_sparse_moe.router.weight"},
	)},
}

// lfm2Moe is LFM2 with experts.
var lfm2Moe = family{
	name: "lfm2_moe", types: []string{"lfm2_moe"},
	experts: &expertKeys{path: "feed_forward.experts.", proj: wProj, count: routedExperts},
	views:   []view{plainTransformers},
}

// jamba is Jamba, of which some layers have Mamba and some have experts.
var jamba = family{
	name: "jamba", types: []string{"jamba"},
	experts: &expertKeys{path: "feed_forward.experts.", proj: mlpProj, count: routedExperts},
	views:   []view{plainTransformers},
}
