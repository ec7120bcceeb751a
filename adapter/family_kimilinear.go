package adapter

import "slices"

// kimiLinear is Kimi Linear, which has linear attention in most layers.
var kimiLinear = family{
	name: "kimi_linear", types: []string{"kimi_linear"},
	experts: &expertKeys{path: "block_sparse_moe.experts.", proj: wProj, count: routedExperts},
	views:   []view{transformersKimiLinear},
}

// transformersKimiLinear renames only what is in blocks of experts, since the MLPs of the other
// layers are published as they are named in memory.
var transformersKimiLinear = view{
	layout: LayoutTransformers, path: "mlp.experts.", marks: kernelMarks,
	steps: []step{joinedKernels(".self_attn.")},
	renames: slices.Concat([]rename{
		{".block_sparse_moe.gate.", ".mlp.gate."},
		{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."},
	}, forgetGate),
}
