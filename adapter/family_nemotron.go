package adapter

// nemotronH is Nemotron-H and Nemotron 3: Mamba, attention, and experts without a gate.
var nemotronH = family{
	name:  "nemotron_v3",
	types: []string{"nemotron_h"},
	plain: []string{".mixer.conv1d.", ".embeddings.", ".embedding."},
	experts: &expertKeys{
		path: "mixer.experts.", proj: mlpProj, count: []string{"n_routed_experts"},
		prefixes: []string{predictionPrefix},
	},
	views: []view{{
		layout: LayoutNative, mtp: dropAfter, marks: []string{"._fp32_params."},
		prefixes: []rename{
			{"^backbone.norm_f.weight$", "model.norm.weight"},
			{"^model.norm_f.weight$", "model.norm.weight"},
			{"^backbone.embeddings.weight$", "model.embed_tokens.weight"},
			{"^backbone.embedding.weight$", "model.embed_tokens.weight"},
			{"^model.embeddings.weight$", "model.embed_tokens.weight"},
			{"^model.embedding.weight$", "model.embed_tokens.weight"},
			{"^backbone.", "model."},
		},
		renames: []rename{
			{".mixer.A_log$", ".mixer._fp32_params.A_log"},
			{".mixer.dt_bias$", ".mixer._fp32_params.dt_bias"},
			{".mixer.D$", ".mixer._fp32_params.D"},
		},
		float32: []string{
			".mixer._fp32_params.A_log", ".mixer._fp32_params.dt_bias", ".mixer._fp32_params.D",
		},
	}, transformersNemotronH},
}

// transformersNemotronH has no tensor for gate and up together, since the experts have no gate.
var transformersNemotronH = view{
	layout: LayoutTransformers, prefixes: []rename{{"^backbone.", "model."}},
	marks: []string{"^model.embeddings."},
	groups: []group{
		{name: "up_proj", parts: []role{up}},
		{name: "down_proj", parts: []role{down}},
	},
}
