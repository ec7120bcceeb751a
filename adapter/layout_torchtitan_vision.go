package adapter

import (
	"fmt"
	"slices"
)

// titanKimi is TorchTitan's kimi_k2_7: a vision tower and a language model like DeepSeek-V3. It
// also reads Kimi-VL, whose projector has other names.
var titanKimi = view{
	layout: LayoutTorchTitan, path: titanPath, mtpPath: titanDeepSeek.mtpPath,
	steps: []step{
		thirds(".wqkv.weight", ".wq.weight", ".wk.weight", ".wv.weight"),
		thirds(".wqkv.bias", ".wq.bias", ".wk.bias", ".wv.bias"),
	},
	prefixes: append([]rename{
		{"^vision_tower.patch_embed.proj.", titanPatches + "."},
		{"^vision_tower.patch_embed.pos_emb.weight$", "vision_encoder.pos_embed"},
		{"^vision_tower.encoder.blocks.", "vision_encoder.layers."},
		{"^vision_tower.encoder.final_layernorm.", "vision_encoder.final_norm."},
		{"^mm_projector.pre_norm.", "vision_encoder.projector.pre_norm."},
		{"^mm_projector.proj.0.", "vision_encoder.projector.linear_1."},
		{"^mm_projector.proj.2.", "vision_encoder.projector.linear_2."},
		{"^multi_modal_projector.", "vision_encoder.projector."},
	}, titanPrefixes...),
	renames: append([]rename{
		{"^vision_encoder.layers.*.norm0.", "vision_encoder.layers.*.norm1."},
		{"^vision_encoder.layers.*.norm1.", "vision_encoder.layers.*.norm2."},
		{"^vision_encoder.layers.*.wo.", "vision_encoder.layers.*.attn.proj."},
		{"^vision_encoder.layers.*.w", "vision_encoder.layers.*.attn.w"},
		{"^vision_encoder.layers.*.mlp.fc0.", "vision_encoder.layers.*.mlp.linear_fc1."},
		{"^vision_encoder.layers.*.mlp.fc1.", "vision_encoder.layers.*.mlp.linear_fc2."},
	}, titanDeepSeek.renames...),
	drops: titanDeepSeek.drops,
	hooks: hooks{reshape: titanFlat},
}

// titanQwen35 is TorchTitan's qwen3_5 without experts. Models with experts do not have the view,
// since its rule takes the axes of published experts the other way around.
var titanQwen35 = view{
	layout: LayoutTorchTitan, types: []string{"qwen3_5"}, mtp: dropMTP,
	steps: []step{
		tied{from: "model.language_model.embed_tokens.weight", to: "lm_head.weight"},
		thirds(".attn.qkv.weight", ".attn.wq.weight", ".attn.wk.weight", ".attn.wv.weight"),
		thirds(".attn.qkv.bias", ".attn.wq.bias", ".attn.wk.bias", ".attn.wv.bias"),
		fused{
			from: ".linear_attn.in_proj_qkv.weight",
			to: []string{
				".linear_attn.in_proj_q.weight", ".linear_attn.in_proj_k.weight",
				".linear_attn.in_proj_v.weight",
			},
			rows: linearRows,
		},
		fused{
			from: ".linear_attn.conv1d.weight",
			to: []string{
				".linear_attn.conv_q.weight", ".linear_attn.conv_k.weight",
				".linear_attn.conv_v.weight",
			},
			rows: linearRows,
		},
	},
	prefixes: []rename{
		{"^model.language_model.", ""},
		{"^model.visual.patch_embed.proj.", titanPatches + "."},
		{"^model.visual.pos_embed.weight$", "vision_encoder.pos_embed"},
		{"^model.visual.blocks.", "vision_encoder.layers."},
		{"^model.visual.", "vision_encoder."},
	},
	renames: slices.Concat([]rename{
		{".self_attn.q_proj.", ".attn.wq."},
		{".self_attn.k_proj.", ".attn.wk."},
		{".self_attn.v_proj.", ".attn.wv."},
		{".self_attn.o_proj.", ".attn.wo."},
		{".self_attn.", ".attn."},
		{".linear_attn.", ".attn."},
	}, titanEmbedding, titanMLP, titanNorms),
	drops: []drop{titanRotary},
	hooks: hooks{reshape: titanFlat},
}

// titanMuseGlimmer is TorchTitan's muse_glimmer. Its heads have their rows in pairs, in the vision
// tower too.
var titanMuseGlimmer = view{
	layout: LayoutTorchTitan,
	steps: append([]step{swapped{
		ends: []string{
			".attn.q_proj.weight", ".attn.k_proj.weight", ".attn.q_proj.bias", ".attn.k_proj.bias",
		},
		pairs: true, heads: visionHeads,
	}}, titanPairs...),
	prefixes: []rename{
		{"^model.language_model.", ""},
		{
			"^model.vision_tower.patch_embedder.patch_embedding.",
			"vision_encoder.conv1_linear.",
		},
		{
			"^model.vision_tower.patch_embedder.position_embedding_table.weight$",
			"vision_encoder.positional_embedding_vlm",
		},
		{"^model.vision_tower.", "vision_encoder."},
		{"^model.vision_adapter.fc1.", "vision_adapter.c_fc."},
		{"^model.vision_adapter.fc2.", "vision_adapter.c_proj."},
		{"^model.vision_projection.", "vision_projection."},
	},
	renames: slices.Concat([]rename{
		{"^embed_tokens.", "tok_embeddings.embedding."},
		{".self_attn.gate_proj.", ".attention.o_gate."},
		{".input_layernorm.", ".attention_norm."},
		{".post_attention_layernorm.", ".post_attention_norm."},
		{".pre_feedforward_layernorm.", ".ffn_norm."},
		{".post_feedforward_layernorm.", ".post_ffn_norm."},
		{".attn.q_proj.", ".attn.wq."},
		{".attn.k_proj.", ".attn.wk."},
		{".attn.v_proj.", ".attn.wv."},
		{".mlp.fc1.", ".mlp.linear_fc1."},
		{".mlp.fc2.", ".mlp.linear_fc2."},
	}, titanQKV, titanMLP),
}

// thirds divides a tensor into three parts with the same rows.
func thirds(from string, to ...string) step {
	return fused{from: from, to: to, rows: equalParts(3)}
}

// linearRows are the rows of q, k and v in the linear attention of Qwen 3.5.
func linearRows(s settings, _ int64) ([]int64, error) {
	size := func(heads, width string) (int64, error) {
		h, found, err := s.whole(heads)
		if err != nil {
			return 0, err
		}
		w, also, err := s.whole(width)
		if err == nil && (!found || !also) {
			err = fmt.Errorf("config.json lacks %s or %s, which say how many rows are q, k and v",
				heads, width)
		}
		return int64(h) * int64(w), err
	}
	k, err := size("linear_num_key_heads", "linear_key_head_dim")
	if err != nil {
		return nil, err
	}
	v, err := size("linear_num_value_heads", "linear_value_head_dim")
	return []int64{k, k, v}, err
}

// titanPatches is the path of the layer that embeds the patches of an image. It multiplies flat
// patches with a matrix, and published checkpoints have a convolution.
const titanPatches = "vision_encoder.patch_embed"

// titanFlat makes a matrix of the convolution.
func titanFlat(name string, shape []int64) []int64 {
	if name != titanPatches+".weight" || len(shape) < 3 {
		return nil
	}
	cols := int64(1)
	for _, n := range shape[1:] {
		cols *= n
	}
	return []int64{shape[0], cols}
}
