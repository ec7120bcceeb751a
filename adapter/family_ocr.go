package adapter

import "slices"

// deepseekOCR2 is DeepSeek-OCR 2: SAM, a language model that encodes images, and DeepSeek-V2's
// experts.
var deepseekOCR2 = family{
	name: "deepseek_ocr2", types: []string{"deepseek_ocr2"}, inner: []string{"deepseek_ocr2_text"},
	plain:   ocrPlain,
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers, marks: samMarks,
		prefixes: slices.Concat(samPrefixes, ocrPrefixes, []rename{
			{"^model.qwen2_model.model.model.", "model.vision_tower.vision_encoder."},
			{"^model.qwen2_model.query_768.", "model.vision_tower.query_768_resolution."},
			{"^model.qwen2_model.query_1024.", "model.vision_tower.query_1024_resolution."},
		}),
	}},
}

// unlimitedOCR is Unlimited-OCR: SAM, CLIP with fused queries, keys and values, and DeepSeek-V2's
// experts.
var unlimitedOCR = family{
	name: "unlimited_ocr", types: []string{"unlimited_ocr"}, inner: []string{"unlimited_ocr_text"},
	plain:   ocrPlain,
	experts: mlpExperts(routedExperts...),
	views: []view{{
		layout: LayoutTransformers, marks: samMarks,
		steps: []step{clipThirds("weight"), clipThirds("bias")},
		prefixes: slices.Concat(samPrefixes, ocrPrefixes, []rename{
			{"^model.vision_model.transformer.", "model.vision_tower.vision_encoder.encoder."},
			{"^model.vision_model.", "model.vision_tower.vision_encoder."},
		}),
	}},
}

// clipThirds takes apart query, key and value of CLIP.
func clipThirds(kind string) step {
	return fused{
		under: "model.vision_model.", from: ".qkv_proj." + kind, rows: equalParts(3),
		to: []string{".q_proj." + kind, ".k_proj." + kind, ".v_proj." + kind},
	}
}

// samMarks are keys that a model with SAM has only in memory.
var samMarks = []string{"^model.vision_tower.sam_encoder."}

// ocrPlain are parts of keys outside the language model.
var ocrPlain = []string{".sam_model.", ".qwen2_model.", ".vision_model.", ".projector."}

// samPrefixes renames what SAM, the encoder of fine details, is made of.
var samPrefixes = []rename{
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

// ocrPrefixes puts the language model beside the encoders.
var ocrPrefixes = []rename{
	{"^model.projector.layers.", "model.multi_modal_projector."},
	{"^model.view_seperator$", "model.view_separator"},
	{"^model.embed_tokens.", "model.language_model.embed_tokens."},
	{"^model.layers.", "model.language_model.layers."},
	{"^model.norm.", "model.language_model.norm."},
}
