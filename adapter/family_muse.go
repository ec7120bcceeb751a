package adapter

// museGlimmer is Muse Glimmer, which the reference takes a configuration without architectures for
// too. Checkpoints of its earlier architecture have the native names.
var museGlimmer = family{
	name:          "muse_glimmer",
	types:         []string{"muse_glimmer"},
	inner:         []string{"muse_glimmer_text"},
	plain:         []string{"vision_adapter."},
	architectures: []string{"MuseGlimmerForConditionalGeneration", ""},
	views: []view{{
		layout: LayoutNative,
		prefixes: []rename{
			{"^model.language_model.embed_tokens.", "model.embed_tokens."},
			{"^model.language_model.layers.", "model.layers."},
			{"^model.language_model.norm.", "model.norm."},
			{
				"^model.vision_tower.patch_embedder.patch_embedding.weight$",
				"model.vision_encoder.conv1_linear.weight",
			},
			{
				"^model.vision_tower.patch_embedder.position_embedding_table.weight$",
				"model.vision_encoder.positional_embedding_vlm",
			},
			{"^model.vision_tower.layers.", "model.vision_encoder.transformer."},
			{"^model.vision_tower.", "model.vision_encoder."},
			{"^model.vision_adapter.fc1.weight$", "model.vision_adapter.c_fc.weight"},
			{"^model.vision_adapter.fc2.weight$", "model.vision_adapter.c_proj.weight"},
		},
		renames: []rename{
			{museLayer + "post_attention_layernorm.", "model.layers.*.post_attn_norm."},
			{museLayer + "pre_feedforward_layernorm.", "model.layers.*.post_attention_layernorm."},
			{museLayer + "post_feedforward_layernorm.", "model.layers.*.post_ffn_norm."},
			{museLayer + "self_attn.gate_proj.", "model.layers.*.self_attn.output_gate_proj."},
			{museBlock + "attn.proj.", "model.vision_encoder.transformer.*.attn.o_proj."},
			{museBlock + "mlp.fc1.", "model.vision_encoder.transformer.*.mlp.c_fc."},
			{museBlock + "mlp.fc2.", "model.vision_encoder.transformer.*.mlp.c_proj."},
			{museBlock + "norm1.", "model.vision_encoder.transformer.*.ln_1."},
			{museBlock + "norm2.", "model.vision_encoder.transformer.*.ln_2."},
		},
		marks: []string{"^model.layers.", "^model.embed_tokens.", "^model.vision_encoder."},
		note: "without model.rotary_emb.freqs and model.vision_encoder.rotary_emb.inv_freq, " +
			"which NeMo AutoModel computes from config.json",
	}, titanMuseGlimmer},
}

// The beginnings of the native keys of a layer, and of a block of the vision tower, as a rename has
// them.
const (
	museLayer = "^model.layers.*."
	museBlock = "^model.vision_encoder.transformer.*."
)
