package adapter

import (
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const (
	step3p5Config = `{"model_type": "step3p5", "num_hidden_layers": 1, "moe_num_experts": 3}`
	step3p7Config = `{"model_type": "step3p7", "text_config": {"model_type": "step3p5", "num_hidden_layers": 2, "moe_num_experts": 2, "num_nextn_predict_layers": 2}}`
)

// Each expert has its own grid of scales, whose last blocks may be smaller.
func TestStep3ExpertsHaveGridsOfTheirOwn(t *testing.T) {
	for _, root := range []string{"", "model.", "language_model.", "model.language_model."} {
		path := root + "layers.0.moe."
		s := filled(t, step3p5Config, path+"{gate_proj,up_proj}.weight F8_E4M3 3 130 140\n"+
			path+"{gate_proj,up_proj}.weight_scale_inv F32 3 2 2\n"+
			path+"down_proj.weight F8_E4M3 3 140 130\n"+
			path+"down_proj.weight_scale_inv F32 3 2 2")
		value := func(name string) func(e, i, j int64) float32 {
			codes := elements(t, s, path+name+".weight")
			scales := elements(t, s, path+name+".weight_scale_inv")
			return func(e, i, j int64) float32 { return codes(e, i, j) * scales(e, i/128, j/128) }
		}
		gate, up, down := value("gate_proj"), value("up_proj"), value("down_proj")
		for dtype, d := range dtypes {
			view := dict(t, opened(t, s), Options{Layout: LayoutNative, DType: d, EP: EP{0, 2}})
			equal(t, view, []synth.Tensor{
				byElement(path+"experts.gate_and_up_projs", dtype, []int64{2, 140, 260},
					func(i []int64) float32 {
						if i[2] < 130 {
							return gate(i[0], i[2], i[1])
						}
						return up(i[0], i[2]-130, i[1])
					}),
				byElement(path+"experts.down_projs", dtype, []int64{2, 130, 140},
					func(i []int64) float32 { return down(i[0], i[2], i[1]) }),
			})
		}
	}
}

// Prediction layers begin where the configuration says, and stay as they are published.
func TestStep3PredictionLayersStayAsTheyAre(t *testing.T) {
	const layers = `
		model.layers.{0,1,2,3,4}.moe.{gate_proj,up_proj}.weight BF16 2 4 6
		model.layers.{0,1,2,3,4}.moe.down_proj.weight BF16 2 6 4
		model.layers.{0,1,2,3,4}.moe.router_bias F32 2`
	s := filled(t, step3p7Config, layers)
	text := s.Config["text_config"].(map[string]any)
	for start, first := range map[int]int64{1: 1, 0: 2} {
		delete(text, "mtp_base_layer_idx")
		if start > 0 {
			text["mtp_base_layer_idx"] = start
		}
		d := dict(t, opened(t, s), Options{Layout: LayoutNative, EP: EP{1, 2}})
		for n := range int64(5) {
			from := "model.layers." + string(rune('0'+n)) + ".moe."
			if n < first || n >= first+2 {
				mustTensor(t, d,
					"model.language_model.layers."+from[13:]+"gate.e_score_correction_bias")
				down := elements(t, s, from+"down_proj.weight")
				wantTensor(t, d, byElement("model.language_"+from+"experts.down_projs", "BF16",
					[]int64{1, 4, 6}, func(i []int64) float32 { return down(1, i[2], i[1]) }))
				continue
			}
			to := "mtp.layers." + string(rune('0'+n-first)) + ".moe."
			for _, name := range []string{"gate_proj.weight", "up_proj.weight", "down_proj.weight",
				"router_bias"} {
				x := *s.Find(from + name)
				x.Name = to + name
				wantTensor(t, d, x)
			}
		}
		d = dict(t, opened(t, s), Options{Layout: LayoutNative, MTP: MTPDrop})
		if _, ok := d.Tensor("mtp.layers.0.moe.router_bias"); ok {
			t.Error("a dropped prediction layer is shown")
		}
	}
}

// A source that has the experts of prediction layers apart shows them together, too.
func TestStep3PredictionLayersOfSplitSources(t *testing.T) {
	const layers = `
		model.layers.2.moe.{gate_proj,up_proj}.weight BF16 2 4 6
		model.layers.2.moe.down_proj.weight BF16 2 6 4
		model.layers.2.eh_proj.weight BF16 6 12`
	s := filled(t, step3p7Config, layers)
	c := opened(t, s)
	split := tensorsOf(t, dict(t, c, Options{Layout: LayoutSplit}))
	want := tensorsOf(t, dict(t, c, Options{Layout: LayoutNative}))
	equal(t, dict(t, opened(t, regrouped(s, split)), Options{Layout: LayoutNative}), want)

	missing := regrouped(s, split)
	for i, x := range missing.Tensors {
		if x.Name == "model.layers.2.moe.experts.1.up_proj.weight" {
			missing.Tensors = append(missing.Tensors[:i:i], missing.Tensors[i+1:]...)
			break
		}
	}
	wantRefused(t, missing, LayoutNative, "model.layers.2.moe.experts.0.up_proj.weight",
		"moe_num_experts = 2")
}

// Text is below model.language_model, whatever prefix the source gives it.
func TestStep3p7Prefixes(t *testing.T) {
	s := filled(t, step3p7Config, `
		model.embed_tokens.weight BF16 4 6
		model.language_model.layers.0.input_layernorm.weight BF16 6
		language_model.layers.1.input_layernorm.weight BF16 6
		language_model.layers.2.enorm.weight BF16 6
		model.norm.weight BF16 6
		model.other.weight BF16 6
		lm_head.weight BF16 4 6
		vision_model.conv1.weight BF16 4 6
		vit_large_projector.weight BF16 4 6`)
	want := []synth.Tensor{}
	for from, to := range map[string]string{
		"model.embed_tokens.weight":                            "model.language_model.embed_tokens.weight",
		"model.language_model.layers.0.input_layernorm.weight": "model.language_model.layers.0.input_layernorm.weight",
		"language_model.layers.1.input_layernorm.weight":       "model.language_model.layers.1.input_layernorm.weight",
		"language_model.layers.2.enorm.weight":                 "mtp.layers.0.enorm.weight",
		"model.norm.weight":                                    "model.language_model.norm.weight",
		"model.other.weight":                                   "model.other.weight",
		"lm_head.weight":                                       "lm_head.weight",
		"vision_model.conv1.weight":                            "model.vision_model.conv1.weight",
		"vit_large_projector.weight":                           "model.vit_large_projector.weight",
	} {
		x := *s.Find(from)
		x.Name = to
		want = append(want, x)
	}
	equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative}), want)
}
