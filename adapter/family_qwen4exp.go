package adapter

// qwen4Exp is Qwen 4 Exp, which has a table of n-grams in parts.
var qwen4Exp = family{
	name: "qwen4_exp", types: []string{"qwen4_exp", "qwen4_exp_text"},
	experts: mlpExperts(routedExperts...),
	views:   []view{transformersQwen4Exp},
}

// transformersQwen4Exp joins the table of n-grams.
var transformersQwen4Exp = view{
	layout: LayoutTransformers,
	marks:  []string{".ngram_embedding.weight$"},
	steps: []step{numberedParts{
		from: ".ngram_embedding.shard_*.weight", to: ".ngram_embedding.weight",
		count: "split_ngram_parts",
	}},
}
