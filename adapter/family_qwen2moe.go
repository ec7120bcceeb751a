package adapter

// qwen2Moe are the models with the experts of Qwen2-MoE that no other reference knows. In memory,
// transformers only groups their experts.
var qwen2Moe = family{
	name: "qwen2_moe",
	types: []string{
		"qwen2_moe", "afmoe", "beam", "cohere2_moe", "deepseek_v2", "dots1", "dots3_note_text",
		"flex_olmo", "glm4v_moe", "glm4v_moe_text", "hunyuan_v1_moe", "longcat_flash", "mellum",
		"olmoe", "sarvam_mla", "solar_open",
	},
	experts: mlpExperts(routedExperts...),
	views:   []view{{layout: LayoutTransformers, lacks: zeroExperts}},
}

// zeroExperts says whether LongCat-Flash has experts without weights. In transformers, the groups
// of such a model have different numbers of experts, and it reads no checkpoint.
func zeroExperts(s settings) string {
	if n, ok := s.integer("zero_expert_num"); s.modelType() == "longcat_flash" && (!ok || n != 0) {
		return "zero_expert_num is not 0, which transformers does not read"
	}
	return ""
}

// Models with the experts of Qwen2-MoE, of which transformers also changes names.
var (
	exaoneMoe = transformersOnly("exaone_moe",
		rename{".mlp.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias"})
	flint = transformersOnly("flint",
		rename{".self_attn.softmax_offset$", ".self_attn.sinks"})
	axk1 = marked(transformersOnly("axk1",
		rename{".post_mlp_layernorm.", ".mlp.post_mlp_layernorm."}), ".mlp.post_mlp_layernorm.")
	axk2 = transformersOnly("axk2",
		rename{".W_down.", ".mlp.fc1."},
		rename{".W_up.", ".mlp.fc2."},
		rename{".self_attn.q_b_proj.", ".self_attn.q_gate_proj."})
	kolibri1 = transformersOnly("kolibri1",
		rename{".moe.router.expert_bias$", ".mlp.gate.e_score_correction_bias"},
		rename{".post_attn_norm.", ".post_self_attn_layernorm."},
		rename{".post_ffn_norm.", ".post_mlp_layernorm."})
)

// marked adds marks to the only view of a family.
func marked(f family, marks ...string) family {
	f.views[0].marks = marks
	return f
}

// transformersOnly is a family whose experts are named as in most checkpoints, and that only
// transformers has.
func transformersOnly(name string, renames ...rename) family {
	return family{
		name: name, types: []string{name},
		experts: mlpExperts(routedExperts...),
		views:   []view{transformersWith(renames...)},
	}
}
