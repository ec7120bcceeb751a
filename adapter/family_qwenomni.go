package adapter

import "slices"

// qwen3Omni is Qwen3-Omni. Its native layout has the names of the model that listens and thinks,
// the thinker. The talker stays as it is, with a number of experts of its own.
var qwen3Omni = family{
	name:    "qwen3_omni_moe",
	types:   []string{"qwen3_omni_moe"},
	inner:   []string{"qwen3_omni_moe_thinker", "qwen3_omni_moe_text"},
	plain:   []string{"talker.", "code2wav."},
	experts: mlpExperts(routedExperts...),
	views: []view{
		{layout: LayoutNative, prefixes: qwenThinker},
		{
			layout: LayoutTransformers, prefixes: below("thinker.", qwenThinkerModules),
			marks: []string{
				"^thinker.model.language_model.", "^thinker.model.visual.",
				"^thinker.model.audio_tower.",
			},
			others: []otherExperts{{"talker.model.", "talker_config"}},
		},
	},
}

// qwen3OmniThinker is the thinker of Qwen3-Omni alone.
var qwen3OmniThinker = family{
	name:    "qwen3_omni_moe_thinker",
	types:   []string{"qwen3_omni_moe_thinker"},
	inner:   []string{"qwen3_omni_moe_text"},
	experts: mlpExperts(routedExperts...),
	views: []view{plainNative, {
		layout: LayoutTransformers, prefixes: below("", qwenThinkerModules),
		marks: []string{"^model.language_model.", "^model.visual.", "^model.audio_tower."},
	}},
}

// qwenThinkerModules are the beginnings of the names of the thinker's modules in transformers.
var qwenThinkerModules = []rename{
	{"model.", "model.language_model."},
	{"visual.", "model.visual."},
	{"audio_tower.", "model.audio_tower."},
}

// below returns renames of the beginnings of keys below a prefix.
func below(prefix string, all []rename) []rename {
	to := make([]rename, len(all))
	for i, r := range all {
		to[i] = rename{"^" + prefix + r.from, prefix + r.to}
	}
	return to
}

// qwen25Omni is Qwen2.5-Omni. Its native layout has only the thinker.
var qwen25Omni = family{
	name:  "qwen2_5_omni",
	types: []string{"qwen2_5_omni"},
	inner: []string{"qwen2_5_omni_thinker", "qwen2_5_omni_text"},
	plain: []string{"talker.", "token2wav."},
	views: []view{{
		layout: LayoutNative, prefixes: qwenThinker,
		marks: []string{"^model.", "^lm_head.", "^visual.", "^audio_tower."},
		drops: slices.Concat([]drop{
			{"^talker.", "the talker, which the layout does not have"},
			{"^token2wav.", "the vocoder, which the layout does not have"},
		}, qwen25OmniDrops),
	}},
}

// qwen25OmniThinker is the thinker of Qwen2.5-Omni alone.
var qwen25OmniThinker = family{
	name:  "qwen2_5_omni_thinker",
	types: []string{"qwen2_5_omni_thinker"},
	inner: []string{"qwen2_5_omni_text"},
	views: []view{{layout: LayoutNative, drops: qwen25OmniDrops}},
}

// qwen25OmniDrops are what the thinker lacks in the reference.
var qwen25OmniDrops = []drop{{
	"audio_tower.audio_bos_eos_token",
	"a parameter of the audio tower that the layout does not have",
}}

// qwenThinker puts each part of the thinker at the root.
var qwenThinker = []rename{
	{"^thinker.model.", "model."},
	{"^thinker.lm_head.", "lm_head."},
	{"^thinker.visual.", "visual."},
	{"^thinker.audio_tower.", "audio_tower."},
}
