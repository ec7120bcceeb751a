package adapter

import "slices"

// deepSeekOCR2 is DeepSeek-OCR 2, whose second image encoder is a language model.
var deepSeekOCR2 = family{
	name: "deepseek_ocr2", types: []string{"deepseek_ocr2"},
	inner:   []string{"deepseek_ocr2_text"},
	plain:   ocrPlain,
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers, marks: []string{"^model.language_model."},
		prefixes: slices.Concat(ocrModules, samEncoder, []rename{
			{"^model.qwen2_model.query_768.", "model.vision_tower.query_768_resolution."},
			{"^model.qwen2_model.query_1024.", "model.vision_tower.query_1024_resolution."},
			{"^model.qwen2_model.model.model.", "model.vision_tower.vision_encoder."},
		}),
	}},
}

// unlimitedOCR is Unlimited-OCR, whose second image encoder is that of CLIP.
var unlimitedOCR = family{
	name: "unlimited_ocr", types: []string{"unlimited_ocr"},
	inner:   []string{"unlimited_ocr_text"},
	plain:   ocrPlain,
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers, marks: []string{"^model.language_model."},
		steps: fusedQKV("model.vision_model.", ".self_attn.qkv_proj.", ".self_attn."),
		prefixes: slices.Concat(ocrModules, samEncoder, []rename{
			{"^model.vision_model.transformer.", "model.vision_tower.vision_encoder.encoder."},
			{"^model.vision_model.", "model.vision_tower.vision_encoder."},
		}),
	}},
}

// ocrPlain are parts of keys outside the language model.
var ocrPlain = []string{".sam_model.", ".qwen2_model.", ".vision_model.", ".projector."}

// ocrModules are the beginnings of the names of the language model, and of what is between it and
// the image encoders.
var ocrModules = []rename{
	{"^model.embed_tokens.", "model.language_model.embed_tokens."},
	{"^model.layers.", "model.language_model.layers."},
	{"^model.norm.", "model.language_model.norm."},
	{"^model.projector.layers.", "model.multi_modal_projector."},
	{"^model.view_seperator$", "model.view_separator"},
}

// samEncoder are the names of the image encoder of SAM.
var samEncoder = []rename{
	{
		"^model.sam_model.blocks.*.norm1.",
		"model.vision_tower.sam_encoder.layers.*.layer_norm1.",
	},
	{
		"^model.sam_model.blocks.*.norm2.",
		"model.vision_tower.sam_encoder.layers.*.layer_norm2.",
	},
	{"^model.sam_model.blocks.", "model.vision_tower.sam_encoder.layers."},
	{
		"^model.sam_model.patch_embed.proj.",
		"model.vision_tower.sam_encoder.patch_embed.projection.",
	},
	{"^model.sam_model.neck.0.", "model.vision_tower.sam_encoder.neck.conv1."},
	{"^model.sam_model.neck.1.", "model.vision_tower.sam_encoder.neck.layer_norm1."},
	{"^model.sam_model.neck.2.", "model.vision_tower.sam_encoder.neck.conv2."},
	{"^model.sam_model.neck.3.", "model.vision_tower.sam_encoder.neck.layer_norm2."},
	{"^model.sam_model.net_2.", "model.vision_tower.sam_encoder.proj.conv1."},
	{"^model.sam_model.net_3.", "model.vision_tower.sam_encoder.proj.conv2."},
	{"^model.sam_model.", "model.vision_tower.sam_encoder."},
}
