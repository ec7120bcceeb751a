package synth

import "fmt"

// KimiK3Options are the sizes that a checkpoint like Kimi-K3's has. Zero fields have the published
// values.
type KimiK3Options struct{ Layers, Experts int }

// KimiK3 describes a checkpoint of holes in the shape of Kimi-K3: one shard for each layer, and
// experts in MXFP4. Attention is left out but for the tensors with rules of their own.
func KimiK3(o KimiK3Options) *Checkpoint {
	if o.Layers == 0 {
		o.Layers = 93
	}
	if o.Experts == 0 {
		o.Experts = 896
	}
	const hidden, inner, latent, heads, vocab = 7168, 3072, 3584, 96, 163840
	c := &Checkpoint{Config: o.config(heads)}
	shard := 0
	add := func(name, dtype string, shape ...int64) {
		c.Tensors = append(c.Tensors, Tensor{"language_model." + name, dtype, shape, nil, shard})
	}
	add("model.embed_tokens.weight", "BF16", vocab, hidden)
	add("lm_head.weight", "BF16", vocab, hidden)
	add("model.norm.weight", "BF16", hidden)
	for shard = range o.Layers {
		p := fmt.Sprintf("model.layers.%d.", shard)
		add(p+"input_layernorm.weight", "BF16", hidden)
		add(p+"post_attention_layernorm.weight", "BF16", hidden)
		add(p+"self_attn.A_log", "F32", 128)
		add(p+"self_attn.dt_bias", "F32", heads*128)
		add(p+"self_attn.o_norm.weight", "BF16", 128)
		for _, name := range []string{"q_conv1d", "k_conv1d", "v_conv1d"} {
			add(p+"self_attn."+name+".weight", "BF16", heads*128, 1, 4)
		}
		if shard == 0 {
			add(p+"mlp.gate_proj.weight", "BF16", 33792, hidden)
			add(p+"mlp.up_proj.weight", "BF16", 33792, hidden)
			add(p+"mlp.down_proj.weight", "BF16", hidden, 33792)
			continue
		}
		p += "block_sparse_moe."
		add(p+"gate.weight", "BF16", int64(o.Experts), hidden)
		add(p+"gate.e_score_correction_bias", "F32", int64(o.Experts))
		add(p+"routed_expert_down_proj.weight", "BF16", latent, hidden)
		add(p+"routed_expert_up_proj.weight", "BF16", hidden, latent)
		add(p+"routed_expert_norm.weight", "BF16", latent)
		for e := range o.Experts {
			for _, w := range []struct {
				name      string
				out, from int64
			}{{"w1", inner, latent}, {"w2", latent, inner}, {"w3", inner, latent}} {
				name := fmt.Sprintf("%sexperts.%d.%s.weight_", p, e, w.name)
				add(name+"packed", "U8", w.out, w.from/2)
				add(name+"scale", "U8", w.out, w.from/32)
			}
		}
	}
	return c
}

func (o KimiK3Options) config(heads int) map[string]any {
	return map[string]any{
		"model_type": "kimi_k3", "architectures": []string{"KimiK3ForConditionalGeneration"},
		"dtype": "bfloat16",
		"text_config": map[string]any{
			"model_type": "kimi_linear", "num_hidden_layers": o.Layers, "num_experts": o.Experts,
			"first_k_dense_replace": 1,
			"linear_attn_config":    map[string]any{"num_heads": heads},
			"quantization_config": map[string]any{
				"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
				"ignore": []string{"re:.*self_attn.*", "re:.*shared_experts.*",
					`re:.*mlp\.(gate|up|gate_up|down)_proj.*`, "re:.*lm_head.*",
					"re:.*routed_expert_(down|up)_proj.*"},
				"config_groups": map[string]any{"group_0": map[string]any{
					"format": "mxfp4-pack-quantized", "targets": []string{"Linear"},
					"weights": map[string]any{"num_bits": 4, "type": "float", "symmetric": true,
						"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"},
				}},
			},
		},
	}
}
