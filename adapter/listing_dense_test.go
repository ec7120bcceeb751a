package adapter

func init() {
	for name, l := range listedDense {
		if _, ok := listed[name]; ok {
			panic("listed twice: " + name)
		}
		listed[name] = l
	}
}

// listedDense are small sources of families without experts.
var listedDense = map[string]listing{
	"mistral": {
		`{"model_type": "mistral", "num_hidden_layers": 1}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.{q_proj,k_proj}.weight FP8 8 8
		model.layers.0.mlp.up_proj.weight BF16 12 8
		model.norm.weight BF16 8
		lm_head.weight BF16 16 8`,
	},
	"qwen2": {
		`{"model_type": "qwen2", "num_hidden_layers": 1, "tie_word_embeddings": true}`, `
		model.embed_tokens.weight BF16 16 8
		model.layers.0.self_attn.q_proj.{weight,bias} BF16 8
		model.layers.0.mlp.up_proj.weight FP8 12 8
		model.norm.weight BF16 8`,
	},
}
