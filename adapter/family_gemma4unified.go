package adapter

// gemma4Unified is the Gemma 4 that has no vision tower and reads patches of images as they are.
var gemma4Unified = family{
	name:  "gemma4_unified",
	types: []string{"gemma4_unified"},
	inner: []string{"gemma4_unified_text"},
	plain: []string{"vision_embedder.", "embed_vision."},
	views: []view{{
		layout:   LayoutNative,
		prefixes: append(gemma4UnifiedRenames("model."), gemma4UnifiedRenames("")...),
		marks: []string{"embed_vision.patch_", "embed_vision.pos_",
			"embed_vision.multimodal_embedder."},
	}},
}

// gemma4UnifiedRenames gives the parts that embed an image the names in memory, below a root.
func gemma4UnifiedRenames(root string) []rename {
	var all []rename
	for _, r := range []rename{
		{"vision_embedder.patch_ln1.", "embed_vision.patch_ln1."},
		{"vision_embedder.patch_dense.", "embed_vision.patch_dense."},
		{"vision_embedder.patch_ln2.", "embed_vision.patch_ln2."},
		{"vision_embedder.pos_embedding$", "embed_vision.pos_embedding"},
		{"vision_embedder.pos_norm.", "embed_vision.pos_norm."},
		{
			"embed_vision.embedding_projection.",
			"embed_vision.multimodal_embedder.embedding_projection.",
		},
	} {
		all = append(all, rename{"^" + root + r.from, root + r.to})
	}
	return all
}
