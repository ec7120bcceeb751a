package adapter

// bagel is BAGEL, which understands and makes images.
var bagel = family{
	name:  "bagel",
	types: []string{"bagel"},
	inner: []string{"qwen2"},
	noNative: "NeMo AutoModel has two for it, one for each stage of training, and config.json " +
		"does not say which",
}
