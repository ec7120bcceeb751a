package adapter

// qwen38FlashNext is Qwen3.8-Flash-Next: Qwen 3.5 with experts, and a table of n-grams. Published
// checkpoints call it by its earlier name, qwen4_exp.
var qwen38FlashNext = family{
	name:    "qwen3_8_flash_next",
	types:   []string{"qwen3_8_flash_next", "qwen4_exp", "qwen4_exp_text"},
	inner:   []string{"qwen3_8_flash_next_text"},
	plain:   []string{".self_attn.", ".linear_attn.", ".shared_expert.", ".ple."},
	experts: qwen35Moe.experts,
	views: []view{{
		layout: LayoutNative, types: []string{"qwen3_8_flash_next", "qwen4_exp"},
		empty: true, mtp: dropMTP,
		hooks:    hooks{rekey: qwen35Key, groupPrefix: qwen35GroupPrefix},
		prefixes: qwen35MTP,
		renames:  qwen35Shared,
		float32:  gatedDeltaNetF32,
		drops: []drop{{
			".ple.ple_embedding.ngram_embedding.shard_*.weight$",
			"shard of the table of n-grams, which the reference loads by itself",
		}},
	}, transformersQwen4Exp},
}

// transformersQwen4Exp joins the table of n-grams.
var transformersQwen4Exp = view{
	layout: LayoutTransformers, types: []string{"qwen4_exp", "qwen4_exp_text"},
	marks: []string{".ngram_embedding.weight$"},
	steps: []step{numberedParts{
		from: ".ngram_embedding.shard_*.weight", to: ".ngram_embedding.weight",
		count: "split_ngram_parts",
	}},
}
