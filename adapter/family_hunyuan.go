package adapter

// hunyuanImage3 is HunyuanImage 3. Up and gate of an expert are published as one matrix.
var hunyuanImage3 = family{
	name:  "hunyuan_image3",
	types: []string{"hunyuan_image_3_moe"},
	plain: []string{
		".gate.wg.", "wte.", "vae.", "vision_aligner.", "patch_embed.", "final_layer.",
		"time_embed", "timestep_emb.",
	},
	experts: &expertKeys{
		path: "mlp.experts.", proj: mlpProj, halves: "gate_and_up_proj.weight",
		count: []string{"num_experts"}, perLayer: true,
	},
	views: []view{{
		layout: LayoutNative,
		renames: []rename{
			{"^model.wte.weight$", "model.embed_tokens.weight"},
			{"^model.ln_f.weight$", "model.norm.weight"},
			{".mlp.gate.wg.weight$", ".mlp.gate.weight"},
			{".mlp.shared_mlp.", ".shared_mlp."},
		},
		drops: []drop{
			{"^vae.", notTrained}, {"^vision_model.", notTrained}, {"^vision_aligner.", notTrained},
		},
	}},
}

const notTrained = "not part of the reference's model"
