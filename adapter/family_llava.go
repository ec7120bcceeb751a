package adapter

// llavaOneVision is LLaVA-OneVision 1.5.
var llavaOneVision = family{
	name:  "llava_onevision",
	types: []string{"llavaonevision1_5"},
	inner: []string{"LLaVAOneVision1_5_text", "qwen3"},
	views: []view{{
		layout: LayoutNative,
		prefixes: []rename{
			{"^visual.", "model.visual."},
			{"^model.embed_tokens.", "model.language_model.embed_tokens."},
			{"^model.layers.", "model.language_model.layers."},
			{"^model.norm.", "model.language_model.norm."},
		},
		marks: []string{"^model.visual.", "^model.language_model."},
	}},
}
