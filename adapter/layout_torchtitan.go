package adapter

// titanPath is the path of the experts in TorchTitan's layers.
const titanPath = "moe.routed_experts.inner_experts."

// titanPrefixes removes prefixes that TorchTitan's names do not have.
var titanPrefixes = []rename{
	{"^model.language_model.", ""}, {"^language_model.model.", ""},
	{"^model.", ""}, {"^language_model.", ""},
}

// titanShared are renames that all TorchTitan models share.
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
	layout: LayoutTorchTitan, path: titanPath, mtpPath: "mtp_layers.",
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
		{
			"layers.*.embed_tokens.weight$",
			"TorchTitan's prediction layers use the model's own embedding",
		},
		{".self_attn.rotary_emb.inv_freq$", "computed, not a parameter"},
	},
}

// titanQwen3 is TorchTitan's qwen3.
var titanQwen3 = view{
	layout: LayoutTorchTitan, path: titanPath,
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
