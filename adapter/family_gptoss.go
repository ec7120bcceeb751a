package adapter

// gptOSS is gpt-oss. It is published with grouped experts, as [E, D, 2I] and [E, I, D]. The columns
// of gate and up alternate, here and in the native layout. So gate and up are never taken apart.
var gptOSS = family{
	name:  "gpt_oss",
	types: []string{"gpt_oss"},
	plain: []string{".router."},
	experts: &expertKeys{
		path: "mlp.experts.", count: []string{"num_local_experts"}, grouped: LayoutHF,
		groups: []group{
			{name: "gate_up_proj", parts: []role{gate, up}, transposed: true},
			{name: "down_proj", parts: []role{down}, transposed: true},
		},
		each:  []string{"gate_up_proj_bias", "down_proj_bias"},
		whole: "the columns of gate and up alternate in it",
	},
	views: []view{{layout: LayoutNative, asStored: true, renames: []rename{
		{".mlp.router.weight$", ".mlp.gate.weight"},
		{".mlp.router.bias$", ".mlp.gate.bias"},
	}}, titanGPTOSS},
}
