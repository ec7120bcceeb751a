package adapter

import "strings"

// mistral4 is Mistral 4 without a vision tower.
var mistral4 = family{
	name:    "mistral4",
	types:   []string{"mistral4"},
	experts: mistral4Experts,
	views:   []view{mistral4Text},
}

// mistral4VL is Mistral 4 in the model of Mistral 3, as Mistral-Small-4 is published.
var mistral4VL = family{
	name:    "mistral4_vl",
	types:   []string{"mistral3"},
	inside:  "mistral4",
	experts: mistral4Experts,
	views: []view{mistral4Native(
		rename{"^language_model.", "model.language_model."},
		rename{"^vision_tower.", "model.vision_tower."},
		rename{"^multi_modal_projector.", "model.multi_modal_projector."},
	)},
}

// mistral4Experts are published grouped.
var mistral4Experts = &expertKeys{
	path: "mlp.experts.", proj: mlpProj, count: []string{"n_routed_experts"},
	grouped: LayoutTransformers,
}

// mistral4Text is the native layout of the language model, whose keys may be those that it has in
// the model with a vision tower.
var mistral4Text = func() view {
	v := mistral4Native()
	v.rekey = func(_ *planner, key string) string {
		return strings.TrimPrefix(key, "language_model.")
	}
	return v
}()

// mistral4Native is the native layout. The router has a bias, which some checkpoints lack: it is
// zero before training.
func mistral4Native(prefixes ...rename) view {
	return view{
		layout: LayoutNative, prefixes: prefixes, asStored: true,
		blanks: []blank{{".mlp.gate.weight", ".mlp.gate.e_score_correction_bias"}},
	}
}
