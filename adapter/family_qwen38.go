package adapter

// qwen38FlashNext is Qwen3.8-Flash-Next: Qwen 3.5 with experts, and a table of n-grams. Published
// checkpoints call it by its earlier name, qwen4_exp.
var qwen38FlashNext = family{
	name:    "qwen3_8_flash_next",
	types:   []string{"qwen3_8_flash_next", "qwen4_exp"},
	inner:   []string{"qwen3_8_flash_next_text", "qwen4_exp_text"},
	plain:   []string{".self_attn.", ".linear_attn.", ".shared_expert.", ".ple."},
	experts: qwen35Moe.experts,
	views: []view{{
		layout: LayoutNative, empty: true, mtp: dropMTP,
		hooks:    hooks{rekey: qwen35Key, groupPrefix: qwen35GroupPrefix},
		prefixes: qwen35MTP,
		renames:  qwen35Shared,
		float32:  gatedDeltaNetF32,
		drops: []drop{{
			".ple.ple_embedding.ngram_embedding.shard_*.weight$",
			"shard of the table of n-grams, which the reference loads by itself",
		}},
		note: "without the table of n-grams, which NeMo AutoModel reads from the published " +
			"checkpoint",
	}},
}
