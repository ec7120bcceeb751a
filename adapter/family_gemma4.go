package adapter

import "fmt"

// gemma4 is Gemma 4, with experts or without. A scale for each expert is multiplied into its down
// projection.
var gemma4 = family{
	name:  "gemma4",
	types: []string{"gemma4"},
	inner: []string{"gemma4_text"},
	plain: gemma4Plain,
	experts: &expertKeys{
		path: "experts.", proj: mlpProj, count: []string{"num_experts"},
		grouped: LayoutTransformers,
	},
	views: []view{{
		layout: LayoutNative, empty: true, path: "moe.experts.",
		steps:   []step{gemma4Spelling, gemma4Scale},
		renames: gemma4Router,
		hooks:   hooks{groupPrefix: gemma4GroupPrefix},
	}},
}

// diffusionGemma is the diffusion model of Gemma 4. Its encoder shares the weights of its decoder,
// so the native layout has only one of them.
var diffusionGemma = family{
	name:  "diffusion_gemma",
	types: []string{"diffusion_gemma"},
	inner: []string{"diffusion_gemma_text"},
	plain: gemma4Plain,
	experts: &expertKeys{
		path: "experts.", proj: mlpProj, count: []string{"num_experts"},
		grouped: LayoutTransformers, prefixes: []string{"model.decoder."},
	},
	views: []view{{
		layout: LayoutNative, empty: true, path: "moe.experts.",
		steps: []step{
			gemma4Scale,
			tied{from: "model.decoder.embed_tokens.weight", to: "lm_head.weight"},
			tied{from: "model.embed_tokens.weight", to: "lm_head.weight"},
		},
		prefixes: []rename{{"^model.decoder.", "model."}},
		renames:  gemma4Router,
		drops: []drop{{"^model.encoder.",
			"part of the encoder, whose weights are the decoder's"}},
	}},
}

// gemma4Scale multiplies the scale of each expert into its down projection.
var gemma4Scale = scaledBy{
	path: ".experts.", key: "down_proj", each: "down_proj.weight", by: ".router.per_expert_scale",
}

// gemma4Spelling are names of experts that the reference reads besides the published ones.
var gemma4Spelling = spelled{
	{".moe.gate_up_proj$", ".experts.gate_up_proj"},
	{".moe.down_proj$", ".experts.down_proj"},
	{".moe.per_expert_scale$", ".router.per_expert_scale"},
	{".experts.per_expert_scale$", ".router.per_expert_scale"},
}

// spelled gives tensors the names that published checkpoints have for them.
type spelled []rename

func (s spelled) do(p *planner) error {
	return p.replace(func(w *weight) ([]weight, error) {
		to := *w
		if to.hf = firstOf(s, w.hf); to.hf == w.hf {
			return nil, nil
		}
		if p.weightOf(to.hf) != nil {
			return nil, fmt.Errorf("the same as %s: remove one of them", to.hf)
		}
		return []weight{to}, nil
	})
}

func (spelled) undo(*planner) error { return nil }

// gemma4Router renames the router.
var gemma4Router = []rename{
	{".router.proj.weight$", ".moe.gate.proj.weight"},
	{".router.scale$", ".moe.gate.scale"},
}

// gemma4Plain are parts of keys of weights that are published in BF16.
var gemma4Plain = []string{".router.", "embed_vision.", "embed_tokens_per_layer."}

// gemma4GroupPrefix puts grouped experts below "language_model.", whatever the source's prefix.
func gemma4GroupPrefix(p *planner, _ string) string { return p.root() + "language_model." }
