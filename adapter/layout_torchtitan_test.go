package adapter

import (
	"bytes"
	"strings"
	"testing"
)

// A head that shares the embedding's weights is shown only if the configuration says that it does
// and the checkpoint lacks it.
func TestTorchTitanShowsTiedHeads(t *testing.T) {
	for _, test := range []struct {
		name, config, tensors string
		from                  string // the key that lm_head.weight comes from; empty: there is none
	}{
		{
			"tied", `{"model_type": "qwen3", "tie_word_embeddings": true}`,
			"model.embed_tokens.weight BF16 16 8", "model.embed_tokens.weight",
		},
		{
			"tied, with experts", `{"model_type": "qwen3_moe", "tie_word_embeddings": true}`,
			"model.embed_tokens.weight BF16 16 8", "model.embed_tokens.weight",
		},
		{
			"tied, without the prefix", `{"model_type": "qwen3", "tie_word_embeddings": true}`,
			"embed_tokens.weight BF16 16 8", "embed_tokens.weight",
		},
		{
			"tied, but with a head", `{"model_type": "llama", "tie_word_embeddings": true}`,
			"model.embed_tokens.weight BF16 16 8\nlm_head.weight BF16 16 8", "lm_head.weight",
		},
		{
			"not tied", `{"model_type": "llama", "tie_word_embeddings": false}`,
			"model.embed_tokens.weight BF16 16 8", "",
		},
		{
			"not said to be tied", `{"model_type": "qwen3"}`,
			"model.embed_tokens.weight BF16 16 8", "",
		},
		{
			"Qwen 3.5 is always tied without a head", `{"model_type": "qwen3_5"}`,
			"model.language_model.embed_tokens.weight BF16 16 8",
			"model.language_model.embed_tokens.weight",
		},
		{
			"DeepSeek-V3 is never", `{"model_type": "deepseek_v3", "tie_word_embeddings": true}`,
			"model.embed_tokens.weight BF16 16 8", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := synthetic(t, test.config, test.tensors)
			for i := range s.Tensors {
				s.Tensors[i].Data = bytes.Repeat([]byte{byte(1 + i)}, 2*16*8)
			}
			d := dict(t, opened(t, s), Options{Layout: LayoutTorchTitan})
			head, ok := d.Tensor("lm_head.weight")
			if test.from == "" {
				if ok {
					t.Error("lm_head.weight is shown")
				}
				return
			}
			if !ok {
				t.Fatal("lm_head.weight is missing")
			}
			for _, x := range s.Tensors {
				if x.Name == test.from && !bytes.Equal(content(t, head), x.Data) {
					t.Errorf("lm_head.weight is not %s", test.from)
				}
			}
			if _, ok := d.Tensor("tok_embeddings.weight"); !ok {
				t.Error("tok_embeddings.weight is missing")
			}
		})
	}
}

// What the configuration and the shapes do not tell is refused. The error names what to look at.
func TestTorchTitanRefuses(t *testing.T) {
	const q, k = "model.layers.0.self_attn.q_proj.", "model.layers.0.self_attn.k_proj."
	for _, test := range []struct{ name, config, tensors, want string }{
		{
			"Llama with biases", `{"model_type": "llama", "num_attention_heads": 2}`,
			q + "weight BF16 8 8\n" + q + "bias BF16 8",
			q + "bias: layout torchtitan has no name for it",
		},
		{
			"Llama without a number of heads", `{"model_type": "llama"}`,
			q + "weight BF16 8 8", "config.json has no num_attention_heads",
		},
		{
			"heads with an odd number of rows", `{"model_type": "llama", "num_attention_heads": 2,
				"num_key_value_heads": 1}`,
			q + "weight BF16 8 8\n" + k + "weight BF16 3 8", "k_proj.weight: shape [3 8]",
		},
		{
			"Qwen 3.5 without sizes", `{"model_type": "qwen3_5", "linear_num_key_heads": 2}`,
			"model.language_model.layers.0.linear_attn.conv1d.weight BF16 8 1 4",
			"config.json lacks linear_num_key_heads or linear_key_head_dim",
		},
		{
			"Qwen 3.5 with other sizes", `{"model_type": "qwen3_5", "linear_num_key_heads": 2,
				"linear_key_head_dim": 1, "linear_num_value_heads": 2, "linear_value_head_dim": 1}`,
			"model.language_model.layers.0.linear_attn.conv1d.weight BF16 8 1 4",
			"shape [8 1 4], but the parts by config.json have 6 rows",
		},
		{
			"a vision tower with parts of other sizes", `{"model_type": "kimi_k25"}`,
			"vision_tower.encoder.blocks.0.wqkv.bias BF16 8",
			"8 rows do not divide into 3 equal parts",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := opened(t, synthetic(t, test.config, test.tensors))
			_, err := NewPlan(c, Options{Layout: LayoutTorchTitan})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
			if _, err := NewPlan(c, Options{Layout: LayoutHF}); err != nil {
				t.Errorf("layout hf: %v", err)
			}
		})
	}
}

// Heads of q and k are regrouped by their own numbers, against a loop over rows.
func TestTorchTitanTurnsHalvesIntoPairs(t *testing.T) {
	s := synthetic(t, `{"model_type": "llama", "num_attention_heads": 3, "num_key_value_heads": 2}`,
		"model.layers.0.self_attn.q_proj.weight BF16 18 2\n"+
			"model.layers.0.self_attn.k_proj.weight BF16 12 2\n"+
			"model.layers.0.self_attn.v_proj.weight BF16 12 2")
	for i, x := range s.Tensors {
		for j := range 2 * product(x.Shape) {
			s.Tensors[i].Data = append(s.Tensors[i].Data, byte(j))
		}
	}
	d := dict(t, opened(t, s), Options{Layout: LayoutTorchTitan})
	for name, heads := range map[string]int{"wq": 3, "wk": 2, "wv": 0} {
		got := content(t, mustTensor(t, d, "layers.0.attention.qkv_linear."+name+".weight"))
		const row = 2 * 2
		rows := len(got) / row
		for r := range rows {
			from := r
			if heads > 0 {
				in := rows / heads
				head, i := r/in, r%in
				from = head*in + i%2*in/2 + i/2
			}
			if want := byte(from * row); got[r*row] != want {
				t.Errorf("%s: row %d begins with %d, want %d", name, r, got[r*row], want)
			}
		}
	}
}
