package adapter

import "errors"

// ling is Ling 2, which Bailing publishes with a fused matrix of query, key and value.
var ling = family{
	name:    "ling_v2",
	types:   []string{"bailing_moe", "bailing_moe_v2"},
	experts: mlpExperts("num_experts"),
	views: []view{{
		layout: LayoutNative,
		renames: []rename{
			{"model.word_embeddings.", "model.embed_tokens."},
			{".attention.dense.", ".self_attn.o_proj."},
			{".attention.query_layernorm.", ".self_attn.q_norm."},
			{".attention.key_layernorm.", ".self_attn.k_norm."},
			{".mlp.gate.expert_bias", ".mlp.gate.e_score_correction_bias"},
		},
		steps: []step{fused{
			from: ".attention.query_key_value.weight",
			to: []string{
				".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight",
			},
			rows: queryKeyValueRows,
		}},
	}},
}

// queryKeyValueRows returns the rows of query, key and value in a fused matrix.
func queryKeyValueRows(s settings, _ int64) ([]int64, error) {
	heads, ok := s.integer("num_attention_heads")
	kv, okKV := s.integer("num_key_value_heads")
	dim, okDim := s.integer("head_dim")
	if hidden, okHidden := s.integer("hidden_size"); !okDim && ok && heads > 0 && okHidden {
		dim, okDim = hidden/heads, true
	}
	if !ok || !okKV || !okDim {
		return nil, errors.New("config.json: splitting it needs num_attention_heads, " +
			"num_key_value_heads and head_dim")
	}
	return []int64{int64(heads * dim), int64(kv * dim), int64(kv * dim)}, nil
}
