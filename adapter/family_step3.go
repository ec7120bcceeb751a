package adapter

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// step3p5 is Step 3.5. Each projection of all experts is published as one tensor.
var step3p5 = family{
	name:    "step3p5",
	types:   []string{"step3p5"},
	plain:   step3Plain,
	experts: step3Experts,
	views: []view{{layout: LayoutNative, empty: true, renames: []rename{
		{".moe.router_bias$", ".moe.gate.e_score_correction_bias"},
	}}},
}

// step3p7 is Step 3.7, which is Step 3.5 with a vision model.
var step3p7 = family{
	name:    "step3p7",
	types:   []string{"step3p7", "step3p5v"},
	inner:   []string{"step3p5"},
	plain:   step3Plain,
	experts: step3Experts,
	views: []view{{
		layout: LayoutNative, empty: true,
		marks: []string{"^model.vit_large_projector."},
		steps: []step{step3Predictions{}},
		prefixes: []rename{
			{"^model.embed_tokens.", "model.language_model.embed_tokens."},
			{"^model.layers.", "model.language_model.layers."},
			{"^model.norm.", "model.language_model.norm."},
			{"^language_model.", "model.language_model."},
			{"^vision_model.", "model.vision_model."},
			{"^vit_large_projector.", "model.vit_large_projector."},
		},
		renames: []rename{{
			"^model.language_model.layers.*.moe.router_bias$",
			"model.language_model.layers.*.moe.gate.e_score_correction_bias",
		}},
	}, transformersStep3p7},
}

// transformersStep3p7 takes apart the fused matrices of the vision model.
var transformersStep3p7 = view{
	layout: LayoutTransformers, types: []string{"step3p7"}, lacks: noVisionHeads,
	path:  "mlp.experts.",
	marks: []string{"^model.vision_model.embeddings.", "^model.multi_modal_projector."},
	steps: visionQKV(".attn.in_proj_", ".attn."),
	prefixes: []rename{
		{"^model.embed_tokens.", "model.language_model.embed_tokens."},
		{"^model.layers.", "model.language_model.layers."},
		{"^model.norm.", "model.language_model.norm."},
		{"^vit_large_projector.", "model.multi_modal_projector."},
		{"^vision_model.conv1.", "model.vision_model.embeddings.patch_embedding."},
		{
			"^vision_model.positional_embedding$",
			"model.vision_model.embeddings.position_embedding.weight",
		},
		{"^vision_model.ln_pre.", "model.vision_model.pre_layernorm."},
		{"^vision_model.vit_downsampler", "model.vision_model.downsampler"},
		{
			"^vision_model.transformer.resblocks.*.ls_1.gamma$",
			"model.vision_model.layers.*.lambda_1",
		},
		{
			"^vision_model.transformer.resblocks.*.ls_2.gamma$",
			"model.vision_model.layers.*.lambda_2",
		},
		{
			"^vision_model.transformer.resblocks.*.mlp.c_fc.",
			"model.vision_model.layers.*.mlp.fc1.",
		},
		{
			"^vision_model.transformer.resblocks.*.mlp.c_proj.",
			"model.vision_model.layers.*.mlp.fc2.",
		},
		{"^vision_model.transformer.resblocks.*.attn.", "model.vision_model.layers.*.self_attn."},
		{
			"^vision_model.transformer.resblocks.*.ln_1.",
			"model.vision_model.layers.*.layernorm_before.",
		},
		{
			"^vision_model.transformer.resblocks.*.ln_2.",
			"model.vision_model.layers.*.layernorm_after.",
		},
		{"^vision_model.transformer.resblocks.", "model.vision_model.layers."},
		{"^vision_model.", "model.vision_model."},
	},
	renames: []rename{
		{".moe.router_bias$", ".mlp.gate.e_score_correction_bias"},
		{".moe.gate.", ".mlp.gate."},
		{".share_expert.", ".mlp.shared_experts."},
	},
}

// step3Experts are [E, I, D] for gate and up, and [E, D, I] for down.
var step3Experts = &expertKeys{
	path: "moe.experts.", proj: mlpProj, count: []string{"moe_num_experts", "n_routed_experts"},
	grouped: LayoutHF, groupPath: "moe.",
	groups: []group{
		{name: "gate_proj.weight", parts: []role{gate}},
		{name: "up_proj.weight", parts: []role{up}},
		{name: "down_proj.weight", parts: []role{down}},
	},
}

// step3Plain are parts of keys of weights that published FP8 checkpoints leave in BF16.
var step3Plain = []string{".self_attn.g_proj.", "vit_large_projector."}

// step3Predictions gives prediction layers a place of their own: "mtp.layers.0." and so on. Then
// their experts are not merged and their names do not change, as in the reference.
type step3Predictions struct{}

// step3Roots may precede the layers of the language model.
var step3Roots = []string{"model.language_model.", "model.", "language_model.", ""}

func (step3Predictions) do(p *planner) error {
	start, n, err := step3Range(p.s)
	if err != nil {
		return err
	}
	err = p.replace(func(w *weight) ([]weight, error) {
		for _, root := range step3Roots {
			layer, rest, ok := layerBehind(w.hf, root+"layers.")
			if ok && start <= layer && layer-start < n {
				to := *w
				to.hf = fmt.Sprintf("%slayers.%d%s", predictionPrefix, layer-start, rest)
				return []weight{to}, nil
			}
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	return step3Group(p)
}

// step3Group puts the experts of a prediction layer together as they are published, if the source
// has them apart.
func step3Group(p *planner) error {
	const path = ".moe.experts."
	return p.replace(func(w *weight) ([]weight, error) {
		head, rest, ok := strings.Cut(w.hf, path)
		if !ok || !strings.HasPrefix(head, predictionPrefix+"layers.") {
			return nil, nil
		}
		e, rest, ok := number(rest)
		if !ok || !strings.HasPrefix(rest, ".") {
			return nil, nil
		}
		if e > 0 {
			return []weight{}, p.beside(head+path+"0"+rest, w.hf)
		}
		var experts []*weight
		for one := w; one != nil; one = p.weightOf(fmt.Sprint(head, path, len(experts), rest)) {
			experts = append(experts, one)
		}
		if p.count >= 0 && len(experts) != p.count {
			return nil, fmt.Errorf("%d experts from 0, but config.json has %s = %d", len(experts),
				p.countField(), p.count)
		}
		nodes, err := p.alike(experts)
		if err != nil {
			return nil, err
		}
		n, err := expr.Stack(nodes...)
		return []weight{p.made(head+".moe"+rest, n, experts...)}, err
	})
}

func (step3Predictions) undo(p *planner) error {
	start, _, err := step3Range(p.s)
	if err != nil {
		return err
	}
	return p.replace(func(w *weight) ([]weight, error) {
		k, rest, ok := layerBehind(w.hf, predictionPrefix+"layers.")
		if !ok {
			return nil, nil
		}
		to := *w
		to.hf = fmt.Sprintf("model.layers.%d%s", start+k, rest)
		return []weight{to}, nil
	})
}

// layerBehind reads the number of a layer behind a prefix. rest begins with the dot behind it.
func layerBehind(key, prefix string) (n int, rest string, ok bool) {
	tail, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return 0, "", false
	}
	n, rest, ok = number(tail)
	return n, rest, ok && strings.HasPrefix(rest, ".")
}

// step3Range returns the number of the first prediction layer, and how many there are.
func step3Range(s settings) (start, n int, err error) {
	if start, _, err = s.whole("mtp_base_layer_idx", "num_hidden_layers"); err != nil {
		return 0, 0, err
	}
	n, _, err = s.whole("num_nextn_predict_layers")
	return start, n, err
}
