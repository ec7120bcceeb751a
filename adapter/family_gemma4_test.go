package adapter

import (
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const gemma4Config = `{"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", "num_hidden_layers": 1, "num_experts": 3}}`

// gemma4Layer is a layer of three experts below a prefix, with a dtype of their scales.
func gemma4Layer(t *testing.T, root, scales string) *synth.Checkpoint {
	return filled(t, gemma4Config, root+"layers.0.experts.gate_up_proj BF16 3 8 6\n"+
		root+"layers.0.experts.down_proj BF16 3 6 4\n"+
		root+"layers.0.router.per_expert_scale "+scales+" 3")
}

// The product is rounded to the promoted dtype of both tensors, and only then to that of the view.
func TestGemma4ScalesAreMultipliedIn(t *testing.T) {
	for _, scales := range []string{"BF16", "F32"} {
		s := gemma4Layer(t, "model.language_model.", scales)
		const path = "model.language_model.layers.0."
		down := elements(t, s, path+"experts.down_proj")
		scale := elements(t, s, path+"router.per_expert_scale")
		product := func(e, i, j int64) float32 {
			p := synth.Tensor{DType: scales, Data: synth.Round(scales, down(e, i, j)*scale(e))}
			return number32(p, 0)
		}
		for dtype, d := range dtypes {
			for rank := range 2 {
				view := dict(t, opened(t, s),
					Options{Layout: LayoutNative, DType: d, EP: EP{rank, 2}})
				lo, hi := EP{rank, 2}.Range(3)
				wantTensor(t, view, byElement(path+"moe.experts.down_projs", dtype,
					[]int64{int64(hi - lo), 4, 6}, func(i []int64) float32 {
						return product(int64(lo)+i[0], i[2], i[1])
					}))
				if view.Len() != 2 {
					t.Errorf("%d tensors, want two groups", view.Len())
				}
			}
		}
	}
}

// Experts that are apart have the same scales.
func TestGemma4ScalesOfSplitExperts(t *testing.T) {
	for _, scales := range []string{"BF16", "F32"} {
		s := gemma4Layer(t, "model.language_model.", scales)
		c := opened(t, s)
		split := opened(t, regrouped(s, tensorsOf(t, dict(t, c, Options{Layout: LayoutSplit}))))
		for _, o := range []Options{{Layout: LayoutNative}, {Layout: LayoutNative, EP: EP{1, 2}}} {
			equal(t, dict(t, split, o), tensorsOf(t, dict(t, c, o)))
		}
		delete(s.Config["text_config"].(map[string]any), "num_experts")
		x := s.Find("model.language_model.layers.0.router.per_expert_scale")
		x.Shape, x.Data = []int64{2}, x.Data[:len(x.Data)/3*2]
		short := tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutSplit}))
		wantRefused(t, regrouped(s, short), LayoutNative, "experts.2.down_proj.weight", "entry 2")
	}
}

// The reference reads experts under other names, too.
func TestGemma4SpellingsOfExperts(t *testing.T) {
	s := gemma4Layer(t, "model.language_model.", "F32")
	want := tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutNative}))
	const path = "model.language_model.layers.0."
	for _, scale := range []string{"moe.per_expert_scale", "experts.per_expert_scale"} {
		other := regrouped(s, nil)
		for _, x := range s.Tensors {
			x.Name = map[string]string{
				path + "experts.gate_up_proj":    path + "moe.gate_up_proj",
				path + "experts.down_proj":       path + "moe.down_proj",
				path + "router.per_expert_scale": path + scale,
			}[x.Name]
			other.Tensors = append(other.Tensors, x)
		}
		equal(t, dict(t, opened(t, other), Options{Layout: LayoutNative}), want)
		with(other, path+"router.per_expert_scale", "F32", 3)
		wantRefused(t, other, LayoutNative, scale, "remove one")
	}
}

// Layouts with published names keep the scales, of all experts, as the router does.
func TestGemma4ScalesStayInPublishedNames(t *testing.T) {
	s := gemma4Layer(t, "model.language_model.", "F32")
	for _, layout := range []string{LayoutHF, LayoutSplit} {
		d := dict(t, opened(t, s), Options{Layout: layout, EP: EP{0, 2}})
		wantTensor(t, d, *s.Find("model.language_model.layers.0.router.per_expert_scale"))
	}
}

// Groups are below language_model, whatever the prefix of the layers.
func TestGemma4Prefixes(t *testing.T) {
	for root, to := range map[string]string{
		"model.language_model.": "model.language_model.", "model.": "model.language_model.",
		"language_model.": "language_model.", "": "language_model.",
	} {
		d := dict(t, opened(t, gemma4Layer(t, root, "F32")), Options{Layout: LayoutNative})
		mustTensor(t, d, to+"layers.0.moe.experts.gate_and_up_projs")
		mustTensor(t, d, to+"layers.0.moe.experts.down_projs")
	}
}

func TestGemma4WithoutExpertsIsUnchanged(t *testing.T) {
	s := filled(t, `{"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", "num_hidden_layers": 1, "num_experts": null}}`, `
		model.language_model.layers.0.mlp.up_proj.weight BF16 8 6
		model.vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight BF16 6 6`)
	equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), s.Tensors)
}

func TestGemma4RefusesIncompleteLayers(t *testing.T) {
	const path = "model.language_model.layers.0."
	for missing, texts := range map[string][]string{
		"router.per_expert_scale": {path + "experts.down_proj", path + "router.per_expert_scale"},
		"experts.down_proj":       {path + "router.per_expert_scale", path + "experts.down_proj"},
		"experts.gate_up_proj":    {path + "experts.down_proj", "gate projections of layer 0"},
	} {
		s := gemma4Layer(t, "model.language_model.", "F32")
		for i, x := range s.Tensors {
			if x.Name == path+missing {
				s.Tensors = append(s.Tensors[:i:i], s.Tensors[i+1:]...)
				break
			}
		}
		wantRefused(t, s, LayoutNative, texts...)
	}
	s := gemma4Layer(t, "model.language_model.", "F32")
	reshaped(s, path+"router.per_expert_scale", "F32", 2)
	wantRefused(t, s, LayoutNative, path+"experts.down_proj", "[2]")
}

// A native save has no scales any more, so what is published cannot be shown.
func TestGemma4NativeSavesAreOnlyNative(t *testing.T) {
	s := gemma4Layer(t, "model.language_model.", "F32")
	native := tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutNative}))
	saved := regrouped(s, native)
	equal(t, dict(t, opened(t, saved), Options{Layout: LayoutNative}), native)
	wantRefused(t, saved, LayoutHF, "layout native", "cannot be computed back")
}

// The head of DiffusionGemma is the embedding, unless the checkpoint has one.
func TestDiffusionGemmaHeadIsTheEmbedding(t *testing.T) {
	const config = `{"model_type": "diffusion_gemma", "text_config": {"model_type": "diffusion_gemma_text", "num_hidden_layers": 1, "num_experts": 2}}`
	for _, root := range []string{"model.decoder.", "model."} {
		s := filled(t, config, root+"embed_tokens.weight BF16 4 6")
		head := *s.Find(root + "embed_tokens.weight")
		head.Name = "lm_head.weight"
		embed := head
		embed.Name = "model.embed_tokens.weight"
		equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), []synth.Tensor{embed, head})
	}
	s := filled(t, config, "model.decoder.embed_tokens.weight BF16 4 6\nlm_head.weight BF16 4 6")
	wantTensor(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), *s.Find("lm_head.weight"))
}

// DiffusionGemma's experts are as those of Gemma 4, and its layers have files of their own.
func TestDiffusionGemmaLayers(t *testing.T) {
	const path = "model.decoder.layers.0."
	s := filled(t, `{"model_type": "diffusion_gemma", "text_config": {"model_type": "diffusion_gemma_text", "num_hidden_layers": 1, "num_experts": 2}}`,
		path+"experts.gate_up_proj BF16 2 8 6\n"+path+"experts.down_proj BF16 2 6 4\n"+
			path+"router.per_expert_scale F32 2\n"+
			"model.encoder.language_model.layers.0.layer_scalar BF16 1")
	d := dict(t, opened(t, s), Options{Layout: LayoutNative, DType: dtypes["F32"], EP: EP{1, 2}})
	down, scale := elements(t, s, path+"experts.down_proj"),
		elements(t, s, path+"router.per_expert_scale")
	wantTensor(t, d, byElement("model.layers.0.moe.experts.down_projs", "F32", []int64{1, 4, 6},
		func(i []int64) float32 { return down(1, i[2], i[1]) * scale(1) }))
	for _, x := range d.Plan.Tensors {
		if x.Group != "layer-00000" {
			t.Errorf("%s is in file group %s", x.Name, x.Group)
		}
	}
	if d.Len() != 2 {
		t.Errorf("%d tensors, want two groups", d.Len())
	}
}
