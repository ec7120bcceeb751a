package adapter

import "slices"

// glm5Next is GLM 5 with linear attention and hyper-connections.
var glm5Next = family{
	name:    "glm5_next",
	types:   []string{"glm5_next", "glm5_next_text"},
	experts: mlpExperts(routedExperts...),
	views:   []view{transformersGLM5Next},
}

var transformersGLM5Next = view{
	layout:  LayoutTransformers,
	marks:   append([]string{".attn_hc.base$", ".ffn_hc.base$"}, kernelMarks...),
	steps:   []step{joinedKernels(".self_attn.")},
	renames: slices.Concat(forgetGate, hyperConnections),
}
