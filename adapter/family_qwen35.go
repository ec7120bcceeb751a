package adapter

import "strings"

// qwen35Moe is Qwen 3.5 with experts.
var qwen35Moe = family{
	name:  "qwen3_5_moe",
	types: []string{"qwen3_5_moe", "qwen3_5_moe_text"},
	plain: []string{".in_proj_a.", ".in_proj_b."},
	experts: &expertKeys{
		path: "mlp.experts.", proj: mlpProj, count: []string{"num_experts"},
		grouped: LayoutTransformers, prefixes: []string{"mtp."},
	},
	views: []view{
		{
			layout: LayoutNative, empty: true,
			hooks:    hooks{rekey: qwen35Key, groupPrefix: qwen35GroupPrefix},
			prefixes: qwen35MTP,
			renames:  qwen35Shared,
			float32:  gatedDeltaNetF32,
		},
		plainTransformers,
	},
	absent: map[string]string{
		LayoutTorchTitan: "TorchTitan 0.3.0 has it, but takes the axes of the published experts " +
			"the other way round",
	},
}

// qwen35 is Qwen 3.5 without experts.
var qwen35 = family{
	name:  "qwen3_5",
	types: []string{"qwen3_5", "qwen3_5_text"},
	views: []view{{
		layout: LayoutNative, prefixes: qwen35MTP,
		renames: gatedDeltaNet, float32: gatedDeltaNetF32, marks: []string{"._fp32_params."},
	}, titanQwen35},
}

// qwen3Next is Qwen3-Next, which has the linear attention of Qwen 3.5.
var qwen3Next = family{
	name:    "qwen3_next",
	types:   []string{"qwen3_next"},
	plain:   []string{".in_proj_ba."},
	experts: mlpExperts("num_experts"),
	views: []view{
		{
			layout:  LayoutNative,
			renames: qwen35Shared,
			float32: gatedDeltaNetF32,
		},
		plainTransformers,
	},
}

// qwen35Shared adds the renames of the shared expert.
var qwen35Shared = append([]rename{
	{".mlp.shared_expert.", ".mlp.shared_experts."},
}, gatedDeltaNet...)

// gatedDeltaNet renames the parameters of linear attention that stay F32. In the reference they are
// in another module.
var gatedDeltaNet = []rename{
	{".linear_attn.A_log$", ".linear_attn._fp32_params.A_log"},
	{".linear_attn.dt_bias$", ".linear_attn._fp32_params.dt_bias"},
}

// gatedDeltaNetF32 are the endings of those parameters under their new names.
var gatedDeltaNetF32 = []string{
	".linear_attn._fp32_params.A_log", ".linear_attn._fp32_params.dt_bias",
}

// qwen35MTP are the names of Qwen 3.5's prediction head in the reference's modules.
var qwen35MTP = []rename{
	{"^mtp.fc.weight$", "mtp.layers.0.eh_proj.weight"},
	{"^mtp.pre_fc_norm_embedding.weight$", "mtp.layers.0.enorm.weight"},
	{"^mtp.pre_fc_norm_hidden.weight$", "mtp.layers.0.hnorm.weight"},
	{"^mtp.norm.weight$", "mtp.layers.0.final_layernorm.weight"},
}

// qwen35Roots are the beginnings of the keys that Qwen 3.5's native layout does not move.
var qwen35Roots = []string{"model.", predictionPrefix, "lm_head."}

// qwen35Key moves lm_head to the top. Keys without one of qwen35Roots get the model's root as
// prefix.
func qwen35Key(p *planner, key string) string {
	if tail, ok := strings.CutPrefix(key, "model.lm_head."); ok {
		return "lm_head." + tail
	}
	for _, root := range qwen35Roots {
		if strings.HasPrefix(key, root) {
			return key
		}
	}
	return p.root() + key
}

// qwen35GroupPrefix puts the experts of the language model below "language_model.", except for the
// model without a vision tower.
func qwen35GroupPrefix(p *planner, prefix string) string {
	switch {
	case !language[prefix]:
		return prefix
	case p.s.architecture() == "Qwen3_5MoeForCausalLM":
		return p.root()
	}
	return p.root() + "language_model."
}
