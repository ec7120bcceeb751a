package adapter

// aria is Aria, whose experts are grouped with swapped axes both as published and in memory.
var aria = family{
	name: "aria", types: []string{"aria", "aria_text"}, inner: []string{"aria_text"},
	plain: []string{"vision_tower.", "multi_modal_projector.", ".router."},
	experts: &expertKeys{
		path: "mlp.experts.", proj: mlpProj, count: []string{"moe_num_experts"},
		grouped: LayoutHF,
		groups: []group{
			{name: "fc1.weight", parts: []role{gate, up}, transposed: true},
			{name: "fc2.weight", parts: []role{down}, transposed: true},
		},
	},
	views: []view{
		{layout: LayoutTransformers, types: []string{"aria_text"}, groups: ariaGroups},
		{
			layout: LayoutTransformers, types: []string{"aria"}, groups: ariaGroups,
			prefixes: []rename{
				{"^language_model.model.", "model.language_model."},
				{"^language_model.lm_head.", "lm_head."},
				{"^vision_tower.", "model.vision_tower."},
				{"^multi_modal_projector.", "model.multi_modal_projector."},
			},
		},
	},
}

// ariaGroups are the grouped experts in memory.
var ariaGroups = []group{
	{name: "gate_up_proj", parts: []role{gate, up}, transposed: true},
	{name: "down_proj", parts: []role{down}, transposed: true},
}
