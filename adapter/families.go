package adapter

import "fmt"

// The names of experts that families share.
var (
	mlpProj = [roles]string{"gate_proj.weight", "up_proj.weight", "down_proj.weight"}
	wProj   = [roles]string{"w1.weight", "w3.weight", "w2.weight"}
)

// mlpExperts is how most checkpoints name experts; count is the config's field.
func mlpExperts(count ...string) *expertKeys {
	return &expertKeys{path: "mlp.experts.", proj: mlpProj, count: count}
}

// The layouts that need nothing but the experts grouped.
var (
	plainNative       = view{layout: "native"}
	plainTransformers = view{layout: "transformers"}
)

// gatedDeltaNet routes the parameters of linear attention that stay F32 into the
// holder that the reference's modules have for them.
var gatedDeltaNet = []rename{
	{".linear_attn.A_log$", ".linear_attn._fp32_params.A_log"},
	{".linear_attn.dt_bias$", ".linear_attn._fp32_params.dt_bias"},
}

// gatedDeltaNetF32 are the endings of those parameters under their new names.
var gatedDeltaNetF32 = []string{".linear_attn._fp32_params.A_log", ".linear_attn._fp32_params.dt_bias"}

// titanPath is where TorchTitan's layers have their experts.
const titanPath = "moe.routed_experts.inner_experts."

// titanPrefixes have no place in its names.
var titanPrefixes = []rename{{"^model.language_model.", ""}, {"^language_model.model.", ""}, {"^model.", ""}, {"^language_model.", ""}}

// titanShared are the names that TorchTitan's models have in common.
var titanShared = []rename{
	{"^embed_tokens.", "tok_embeddings."},
	{".mlp.gate.weight$", ".moe.router.gate.weight"},
	{".mlp.gate.e_score_correction_bias$", ".moe.expert_bias_E"},
	{".mlp.shared_experts.gate_proj.", ".moe.shared_experts.w1."},
	{".mlp.shared_experts.up_proj.", ".moe.shared_experts.w3."},
	{".mlp.shared_experts.down_proj.", ".moe.shared_experts.w2."},
	{".mlp.gate_proj.", ".feed_forward.w1."},
	{".mlp.up_proj.", ".feed_forward.w3."},
	{".mlp.down_proj.", ".feed_forward.w2."},
	{".input_layernorm.", ".attention_norm."},
	{".post_attention_layernorm.", ".ffn_norm."},
	{".self_attn.o_proj.", ".attention.wo."},
}

// titanDeepSeek is TorchTitan's deepseek_v3.
var titanDeepSeek = view{
	layout: "torchtitan", path: titanPath, mtpPath: "mtp_layers.",
	prefixes: titanPrefixes,
	renames: append([]rename{
		{".self_attn.kv_a_proj_with_mqa.", ".attention.wkv_a."},
		{".self_attn.kv_a_layernorm.", ".attention.kv_norm."},
		{".self_attn.kv_b_proj.", ".attention.wkv_b."},
		{".self_attn.q_a_proj.", ".attention.wq_a."},
		{".self_attn.q_a_layernorm.", ".attention.q_norm."},
		{".self_attn.q_b_proj.", ".attention.wq_b."},
		{".self_attn.q_proj.", ".attention.wq."},
		{".shared_head.norm.", ".mtp_norm."},
	}, titanShared...),
	drops: []drop{
		{".shared_head.head.weight$", "TorchTitan's prediction layers use the model's own head"},
		{"layers.*.embed_tokens.weight$", "TorchTitan's prediction layers use the model's own embedding"},
		{".self_attn.rotary_emb.inv_freq$", "computed, not a parameter"},
	},
}

// titanQwen3 is TorchTitan's qwen3.
var titanQwen3 = view{
	layout: "torchtitan", path: titanPath,
	prefixes: titanPrefixes,
	renames: append([]rename{
		{".self_attn.q_proj.", ".attention.qkv_linear.wq."},
		{".self_attn.k_proj.", ".attention.qkv_linear.wk."},
		{".self_attn.v_proj.", ".attention.qkv_linear.wv."},
		{".self_attn.q_norm.", ".attention.q_norm."},
		{".self_attn.k_norm.", ".attention.k_norm."},
	}, titanShared...),
	drops: []drop{{".self_attn.rotary_emb.inv_freq$", "computed, not a parameter"}},
}

// families are the rows known: for native the reference adapter of the row's name,
// for transformers the names that its modules have in memory, for torchtitan its own
// adapter. The first row with a type wins.
var families = []family{
	{
		name:    "deepseek_v3",
		types:   []string{"deepseek_v3", "kimi_k2"},
		larger:  []string{".weight"},
		experts: mlpExperts("n_routed_experts"),
		views:   []view{plainNative, plainTransformers, titanDeepSeek},
	},
	{
		name:    "deepseek_v32",
		types:   []string{"deepseek_v32"},
		larger:  []string{".weight"},
		plain:   []string{"indexer.k_norm.", "indexer.weights_proj."},
		experts: mlpExperts("n_routed_experts"),
		views:   []view{plainNative, plainTransformers},
	},
	{
		name:    "kimivl",
		types:   []string{"kimi_vl"},
		experts: mlpExperts("n_routed_experts"),
		views: []view{{layout: "native", prefixes: []rename{
			{"^language_model.model.", "model.language_model.model."},
			{"^language_model.lm_head.", "lm_head."},
			{"^language_model.", "model.language_model."},
			{"^vision_tower.", "model.vision_tower."},
			{"^multi_modal_projector.", "model.multi_modal_projector."},
		}}},
	},
	{
		name:    "minimax_m2",
		types:   []string{"minimax_m2"},
		plain:   []string{"block_sparse_moe.gate.weight"},
		experts: &expertKeys{path: "block_sparse_moe.experts.", proj: wProj, count: []string{"num_local_experts"}},
		views: []view{
			{layout: "native", path: "mlp.experts.", renames: []rename{
				{".block_sparse_moe.gate.weight", ".mlp.gate.weight"},
				{".block_sparse_moe.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"},
			}},
			{layout: "transformers", path: "mlp.experts.", renames: []rename{{".block_sparse_moe.", ".mlp."}}},
		},
	},
	{
		name:    "mimo_v2_flash",
		types:   []string{"mimo_v2_flash"},
		larger:  []string{".k_proj.weight"},
		scales:  mimoV2FlashScales,
		plain:   []string{"self_attn.o_proj.weight"},
		experts: mlpExperts("n_routed_experts"),
		views: []view{plainNative, {layout: "transformers", renames: []rename{
			{".self_attn.attention_sink_bias$", ".self_attn.sinks"},
		}}},
	},
	{name: "mimo_v2", types: []string{"mimo_v2"}, scales: mimoV2Scales},
	{
		name:    "qwen3_moe",
		types:   []string{"qwen3_moe"},
		experts: mlpExperts("num_experts"),
		views:   []view{plainNative, plainTransformers, titanQwen3},
	},
	{
		name:  "qwen3_5_moe",
		types: []string{"qwen3_5_moe", "qwen3_5_moe_text"},
		plain: []string{".in_proj_a.", ".in_proj_b."},
		experts: &expertKeys{
			path: "mlp.experts.", proj: mlpProj, count: []string{"num_experts"},
			grouped: "transformers", prefixes: []string{"mtp."},
		},
		views: []view{
			{
				layout: "native", empty: true, rooted: true, textOnly: []string{"Qwen3_5MoeForCausalLM"},
				oneWay:   []rename{{"^model.lm_head.", "lm_head."}},
				prefixes: qwen35MTP,
				renames:  append([]rename{{".mlp.shared_expert.", ".mlp.shared_experts."}}, gatedDeltaNet...),
				float32:  gatedDeltaNetF32,
			},
			plainTransformers,
		},
	},
	{
		name:    "qwen3_next",
		types:   []string{"qwen3_next"},
		plain:   []string{".in_proj_ba."},
		experts: mlpExperts("num_experts"),
		views: []view{
			{
				layout:  "native",
				renames: append([]rename{{".mlp.shared_expert.", ".mlp.shared_experts."}}, gatedDeltaNet...),
				float32: gatedDeltaNetF32,
			},
			plainTransformers,
		},
	},
	{
		name:    "glm4_moe",
		types:   []string{"glm4_moe", "glm4_moe_lite", "glm_moe_dsa"},
		plain:   []string{"indexer.weights_proj.", "eh_proj.weight"},
		experts: mlpExperts("n_routed_experts"),
		views:   []view{plainNative, plainTransformers},
	},
	{
		name:    "ernie4_5",
		types:   []string{"ernie4_5_moe"},
		experts: mlpExperts("moe_num_experts"),
		views: []view{
			{
				layout: "native", mtp: dropMTP,
				renames: []rename{{".mlp.moe_statics.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"}},
				squeeze: []string{".mlp.gate.e_score_correction_bias"},
			},
			{layout: "transformers", renames: []rename{
				{".mlp.moe_statics.e_score_correction_bias", ".mlp.gate.moe_statics.e_score_correction_bias"},
			}},
		},
	},
	{
		name:    "hy_v3",
		types:   []string{"hy_v3"},
		experts: mlpExperts("num_experts"),
		views: []view{
			{layout: "native", mtp: dropMTP, renames: []rename{
				{".mlp.expert_bias$", ".mlp.gate.e_score_correction_bias"},
				{".mlp.router.gate.weight$", ".mlp.gate.weight"},
				{".mlp.shared_mlp.", ".mlp.shared_experts."},
			}},
			{layout: "transformers", renames: []rename{
				{".mlp.expert_bias$", ".mlp.e_score_correction_bias"},
				{".mlp.router.gate.weight$", ".mlp.gate.weight"},
				{".mlp.shared_mlp.", ".mlp.shared_experts."},
			}},
		},
	},
	{
		name:    "ling_v2",
		types:   []string{"bailing_moe", "bailing_moe_v2"},
		experts: mlpExperts("num_experts"),
		views: []view{{
			layout: "native",
			renames: []rename{
				{"model.word_embeddings.", "model.embed_tokens."},
				{".attention.dense.", ".self_attn.o_proj."},
				{".attention.query_layernorm.", ".self_attn.q_norm."},
				{".attention.key_layernorm.", ".self_attn.k_norm."},
				{".mlp.gate.expert_bias", ".mlp.gate.e_score_correction_bias"},
			},
			split: []fused{{
				from: ".attention.query_key_value.weight",
				to:   []string{".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight"},
				rows: queryKeyValueRows,
			}},
		}},
	},
	{
		name:  "mistral3",
		types: []string{"mistral3", "ministral3"},
		views: []view{{layout: "native", prefixes: []rename{
			{"^language_model.lm_head.weight$", "lm_head.weight"},
			{"^language_model.model.", "model.language_model."},
			{"^language_model.", "model.language_model."},
			{"^vision_tower.", "model.vision_tower."},
			{"^multi_modal_projector.", "model.multi_modal_projector."},
		}}},
	},
	{
		name:  "qwen3_5",
		types: []string{"qwen3_5", "qwen3_5_text"},
		views: []view{{
			layout: "native", prefixes: qwen35MTP, renames: gatedDeltaNet, float32: gatedDeltaNetF32,
		}},
	},
	{name: "llama", types: []string{"llama"}, views: []view{plainNative}},
	{name: "mistral", types: []string{"mistral"}, views: []view{plainNative}},
	{name: "qwen2", types: []string{"qwen2"}, views: []view{plainNative}},
	{name: "qwen3", types: []string{"qwen3"}, views: []view{plainNative, titanQwen3}},
}

// qwen35MTP are the names of Qwen3.5's prediction head in the reference's modules.
var qwen35MTP = []rename{
	{"^mtp.fc.weight$", "mtp.layers.0.eh_proj.weight"},
	{"^mtp.pre_fc_norm_embedding.weight$", "mtp.layers.0.enorm.weight"},
	{"^mtp.pre_fc_norm_hidden.weight$", "mtp.layers.0.hnorm.weight"},
	{"^mtp.norm.weight$", "mtp.layers.0.final_layernorm.weight"},
}

// queryKeyValueRows gives the rows of query, key and value in a fused matrix.
func queryKeyValueRows(s settings) ([]int64, error) {
	heads, ok := s.integer("num_attention_heads")
	kv, okKV := s.integer("num_key_value_heads")
	dim, okDim := s.integer("head_dim")
	if hidden, okHidden := s.integer("hidden_size"); !okDim && ok && heads > 0 && okHidden {
		dim, okDim = hidden/heads, true
	}
	if !ok || !okKV || !okDim {
		return nil, fmt.Errorf("config.json: splitting it needs num_attention_heads, num_key_value_heads and head_dim")
	}
	return []int64{int64(heads * dim), int64(kv * dim), int64(kv * dim)}, nil
}
