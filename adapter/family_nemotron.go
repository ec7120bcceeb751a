package adapter

import "slices"

// nemotronH is Nemotron-H and Nemotron 3: Mamba, attention, and experts without a gate.
var nemotronH = family{
	name:    "nemotron_v3",
	types:   []string{"nemotron_h"},
	plain:   nemotronPlain,
	experts: nemotronExperts(predictionPrefix),
	views: []view{{
		layout: LayoutNative, mtp: dropAfter,
		prefixes: nemotronRoots(""),
		renames:  nemotronMamba,
		marks:    []string{nemotronHolder},
		float32:  nemotronF32,
	}, transformersNemotronH},
}

// transformersNemotronH has no tensor for gate and up together, since the experts have no gate.
var transformersNemotronH = view{
	layout: LayoutTransformers, prefixes: []rename{{"^backbone.", "model."}},
	marks: []string{"^model.embeddings.weight$", "^model.norm_f.weight$"},
	groups: []group{
		{name: "up_proj", parts: []role{up}},
		{name: "down_proj", parts: []role{down}},
	},
}

// nemotronOmni is Nemotron 3 Nano Omni: Nemotron 3 with a vision tower and a sound encoder.
var nemotronOmni = nemotronOmniFamily("nemotron_omni", nil)

// nemotronOmniRadio is a model like it. Its vision tower has other names in memory than in
// published checkpoints, which hold those of timm. As in the reference, the architecture tells the
// two apart.
var nemotronOmniRadio = func() family {
	f := nemotronOmniFamily("nemotron_omni_radio", []rename{
		{radioPatches + "video_embedder", "vision_model.embeddings.video_patch_projection"},
		{radioPatches + "embedder", "vision_model.embeddings.patch_projection"},
		{radioPatches + "pos_embed", "vision_model.embeddings.position_embedding"},
		{radioPatches + "cls_token.token", "vision_model.embeddings.cls_register_token"},
		{"^vision_model.radio_model.model.blocks", "vision_model.encoder.layer"},
		{"^vision_model.radio_model.input_conditioner", "vision_model.input_conditioner"},
		{"^vision_model.radio_model.summary_idxs", "vision_model.summary_idxs"},
	})
	f.types = append(f.types, "NemotronH_Omni_Reasoning_V3")
	f.architectures = []string{"NemotronH_Omni_Reasoning_V3"}
	v := &f.views[0]
	v.later = [][]rename{{{
		from: "^vision_model.encoder.layer.*.attn.proj.",
		to:   "vision_model.encoder.layer.*.attention.output.dense.",
	}}}
	for _, end := range []string{"weight", "bias"} {
		v.steps = append(v.steps, fused{
			from: ".attn.qkv." + end,
			to: []string{
				".attention.attention.query." + end, ".attention.attention.key." + end,
				".attention.attention.value." + end,
			},
			rows: equalParts(3),
		})
	}
	return f
}()

// radioPatches begins the keys of a vision tower's patch embedding.
const radioPatches = "^vision_model.radio_model.model.patch_generator."

// nemotronOmniFamily is a Nemotron Omni. radio renames its vision tower in the native layout.
func nemotronOmniFamily(name string, radio []rename) family {
	const text = "language_model."
	return family{
		name:  name,
		types: []string{"NemotronH_Nano_Omni_Reasoning_V3"},
		inner: []string{"nemotron_h"},
		plain: slices.Concat(nemotronPlain, []string{"mlp1.", "vision_projector.", "sound_"}),
		experts: nemotronExperts(
			text+"backbone.", text+"model.", text+predictionPrefix,
		),
		views: []view{{
			layout: LayoutNative, mtp: dropAfter,
			prefixes: slices.Concat(nemotronRoots(text), []rename{
				{"^mlp1.0.", "vision_projector.norm."},
				{"^mlp1.1.", "vision_projector.linear1."},
				{"^mlp1.3.", "vision_projector.linear2."},
				{"^sound_encoder.encoder.", "sound_encoder."},
			}, radio),
			renames: nemotronMamba,
			marks:   []string{nemotronHolder},
			float32: nemotronF32,
		}},
	}
}

// nemotronExperts names the experts. prefixes are those of their layers.
func nemotronExperts(prefixes ...string) *expertKeys {
	return &expertKeys{
		path: "mixer.experts.", proj: mlpProj, count: []string{"n_routed_experts"},
		prefixes: prefixes,
	}
}

// nemotronRoots renames what is outside layers, and the root of the language model, which has a
// prefix.
func nemotronRoots(prefix string) []rename {
	var all []rename
	for _, r := range []rename{
		{"backbone.norm_f.weight$", "model.norm.weight"},
		{"model.norm_f.weight$", "model.norm.weight"},
		{"backbone.embeddings.weight$", "model.embed_tokens.weight"},
		{"backbone.embedding.weight$", "model.embed_tokens.weight"},
		{"model.embeddings.weight$", "model.embed_tokens.weight"},
		{"model.embedding.weight$", "model.embed_tokens.weight"},
		{"backbone.", "model."},
	} {
		all = append(all, rename{"^" + prefix + r.from, prefix + r.to})
	}
	return all
}

// nemotronPlain are parts of keys of weights that are published in BF16.
var nemotronPlain = []string{".mixer.conv1d.", ".embeddings.", ".embedding."}

// nemotronHolder is in the native keys of Mamba's parameters that stay F32.
const nemotronHolder = ".mixer._fp32_params."

// nemotronMamba renames those parameters.
var nemotronMamba = []rename{
	{".mixer.A_log$", nemotronHolder + "A_log"},
	{".mixer.dt_bias$", nemotronHolder + "dt_bias"},
	{".mixer.D$", nemotronHolder + "D"},
}

// nemotronF32 are the endings of their native keys.
var nemotronF32 = []string{
	nemotronHolder + "A_log", nemotronHolder + "dt_bias", nemotronHolder + "D",
}
