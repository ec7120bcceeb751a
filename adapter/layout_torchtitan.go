package adapter

import (
	"fmt"
	"slices"
)

// titanPath is the path of the experts in TorchTitan's layers.
const titanPath = "moe.routed_experts.inner_experts."

// titanPrefixes removes prefixes that TorchTitan's names do not have.
var titanPrefixes = []rename{
	{"^model.language_model.", ""}, {"^language_model.model.", ""},
	{"^model.", ""}, {"^language_model.", ""},
}

// The renames that models of TorchTitan share.
var (
	titanEmbedding = []rename{{"^embed_tokens.", "tok_embeddings."}}
	titanNorms     = []rename{
		{".input_layernorm.", ".attention_norm."},
		{".post_attention_layernorm.", ".ffn_norm."},
	}
	titanQKV = []rename{
		{".self_attn.q_proj.", ".attention.qkv_linear.wq."},
		{".self_attn.k_proj.", ".attention.qkv_linear.wk."},
		{".self_attn.v_proj.", ".attention.qkv_linear.wv."},
		{".self_attn.o_proj.", ".attention.wo."},
	}
	titanHeadNorms = []rename{
		{".self_attn.q_norm.", ".attention.q_norm."},
		{".self_attn.k_norm.", ".attention.k_norm."},
	}
	titanMLP = []rename{
		{".mlp.gate_proj.", ".feed_forward.w1."},
		{".mlp.up_proj.", ".feed_forward.w3."},
		{".mlp.down_proj.", ".feed_forward.w2."},
	}
	titanExperts = []rename{
		{".mlp.gate.weight$", ".moe.router.gate.weight"},
		{".mlp.gate.e_score_correction_bias$", ".moe.expert_bias_E"},
		{".mlp.shared_experts.gate_proj.", ".moe.shared_experts.w1."},
		{".mlp.shared_experts.up_proj.", ".moe.shared_experts.w3."},
		{".mlp.shared_experts.down_proj.", ".moe.shared_experts.w2."},
	}
)

// titanRotary leaves out a table that some checkpoints have.
var titanRotary = drop{"rotary_emb.inv_freq$", "computed, not a parameter"}

// titanTied gives the head the weights of the embedding, if the two are the same. TorchTitan's
// modules always have both.
var titanTied = []step{
	tied{from: "model.embed_tokens.weight", to: "lm_head.weight", when: isTied},
	tied{from: "embed_tokens.weight", to: "lm_head.weight", when: isTied},
}

// isTied reports whether the head has the weights of the embedding.
func isTied(s settings) bool {
	v, _ := s.lookup("tie_word_embeddings")
	return v == true
}

// titanPairs gives the rows of q and k TorchTitan's order, which has the two halves of a rotation
// in pairs. Its models with this order have no biases there.
var titanPairs = []step{
	swapped{
		ends: []string{".self_attn.q_proj.weight"}, pairs: true,
		heads: headsIn("num_attention_heads"),
	},
	swapped{
		ends: []string{".self_attn.k_proj.weight"}, pairs: true,
		heads: headsIn("num_key_value_heads", "num_attention_heads"),
	},
	unnamed{
		ends:   []string{".self_attn.q_proj.bias", ".self_attn.k_proj.bias"},
		reason: "TorchTitan's model has no biases of q and k",
	},
}

// headsIn returns the number of heads in the first of the configuration's fields that is there.
func headsIn(fields ...string) func(settings) (int64, error) {
	return func(s settings) (int64, error) {
		n, found, err := s.whole(fields...)
		if err == nil && !found {
			err = fmt.Errorf("config.json has no %s, which says how many heads the rows are for",
				fields[0])
		}
		return int64(n), err
	}
}

// titanDeepSeek is TorchTitan's deepseek_v3.
var titanDeepSeek = view{
	layout: LayoutTorchTitan, path: titanPath, mtpPath: "mtp_layers.",
	prefixes: titanPrefixes,
	renames: slices.Concat([]rename{
		{".self_attn.kv_a_proj_with_mqa.", ".attention.wkv_a."},
		{".self_attn.kv_a_layernorm.", ".attention.kv_norm."},
		{".self_attn.kv_b_proj.", ".attention.wkv_b."},
		{".self_attn.q_a_proj.", ".attention.wq_a."},
		{".self_attn.q_a_layernorm.", ".attention.q_norm."},
		{".self_attn.q_b_proj.", ".attention.wq_b."},
		{".self_attn.q_proj.", ".attention.wq."},
		{".self_attn.o_proj.", ".attention.wo."},
		{".shared_head.norm.", ".mtp_norm."},
	}, titanEmbedding, titanExperts, titanMLP, titanNorms),
	drops: []drop{
		{".shared_head.head.weight$", "TorchTitan's prediction layers use the model's own head"},
		{
			"layers.*.embed_tokens.weight$",
			"TorchTitan's prediction layers use the model's own embedding",
		},
		titanRotary,
	},
}

// titanQwen3 is TorchTitan's qwen3, with and without experts.
var titanQwen3 = view{
	layout: LayoutTorchTitan, path: titanPath,
	steps:    titanTied,
	prefixes: titanPrefixes,
	renames: slices.Concat(titanQKV, titanHeadNorms, titanEmbedding, titanExperts, titanMLP,
		titanNorms),
	drops: []drop{titanRotary},
}

// titanLlama is TorchTitan's llama3.
var titanLlama = view{
	layout:   LayoutTorchTitan,
	steps:    slices.Concat(titanTied, titanPairs),
	prefixes: []rename{{"^model.", ""}},
	renames:  slices.Concat(titanQKV, titanEmbedding, titanMLP, titanNorms),
	drops:    []drop{titanRotary},
}

// titanGPTOSS is TorchTitan's gpt_oss. Its experts lie as the blocks of published checkpoints do,
// with the rows of gate and up in turn.
var titanGPTOSS = view{
	layout: LayoutTorchTitan, path: titanPath, asStored: true,
	groups: []group{
		{name: "mlp1_weight", parts: []role{gate, up}},
		{name: "mlp2_weight", parts: []role{down}},
	},
	prefixes: []rename{{"^model.", ""}},
	renames: slices.Concat([]rename{
		{".mlp.router.", ".moe.router.gate."},
		{".mlp.experts.gate_up_proj_bias$", "." + titanPath + "mlp1_bias"},
		{".mlp.experts.down_proj_bias$", "." + titanPath + "mlp2_bias"},
		{".self_attn.sinks$", ".attention.sinks"},
	}, titanQKV, titanEmbedding, titanNorms),
}
