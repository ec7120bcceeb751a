package adapter

import (
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const inklingConfig = `{"model_type": "inkling_mm_model", "text_config": {"model_type": "inkling_text", "num_hidden_layers": 2, "n_routed_experts": 3}}`

// Matrices of MLPs are turned and cast, and their columns stay in order. Other tensors are only
// renamed.
func TestInklingMatricesAreTurnedAndCast(t *testing.T) {
	const from, to = "model.llm.layers.1.mlp.", "model.language_model.layers.1.mlp."
	s := filled(t, inklingConfig, from+`experts.w13_weight BF16 3 8 6
		model.llm.layers.1.mlp.experts.w2_weight BF16 3 6 4
		model.llm.layers.1.mlp.shared_experts.shared_w13_weight BF16 2 8 6
		model.llm.layers.1.mlp.shared_experts.shared_w2_weight BF16 2 6 4
		model.llm.layers.1.mlp.w13_dn.weight BF16 8 6
		model.llm.layers.1.mlp.w2_md.weight F8_E4M3 6 4
		model.llm.layers.1.mlp.w2_md.weight_scale_inv F32 1 1
		model.llm.layers.1.mlp.gate.bias BF16 3`)
	turned := func(name, dtype string, shape []int64, from string, first int64) synth.Tensor {
		at := elements(t, s, from)
		return byElement(name, dtype, shape, func(i []int64) float32 {
			if len(i) == 2 {
				return at(i[1], i[0])
			}
			return at(first+i[0], i[2], i[1])
		})
	}
	codes, scale := elements(t, s, from+"w2_md.weight"),
		elements(t, s, from+"w2_md.weight_scale_inv")
	bias := *s.Find(from + "gate.bias")
	bias.Name = to + "gate._fp32_params.e_score_correction_bias"
	for dtype, d := range dtypes {
		equal(t, dict(t, opened(t, s), Options{Layout: LayoutNative, DType: d, EP: EP{1, 2}}),
			[]synth.Tensor{
				turned(to+"experts.gate_and_up_projs", dtype, []int64{1, 6, 8}, from+"experts.w13_weight", 2),
				turned(to+"experts.down_projs", dtype, []int64{1, 4, 6}, from+"experts.w2_weight", 2),
				turned(to+"shared_experts.gate_up_proj", dtype, []int64{2, 6, 8}, from+"shared_experts.shared_w13_weight", 0),
				turned(to+"shared_experts.down_proj", dtype, []int64{2, 4, 6}, from+"shared_experts.shared_w2_weight", 0),
				turned(to+"gate_up_proj", dtype, []int64{6, 8}, from+"w13_dn.weight", 0),
				byElement(to+"down_proj", dtype, []int64{4, 6},
					func(i []int64) float32 { return codes(i[1], i[0]) * scale(0, 0) }),
				bias,
			})
	}
}

// Rows of gate and up alternate, so experts are not shown apart.
func TestInklingExpertsStayTogether(t *testing.T) {
	s := filled(t, inklingConfig, "model.llm.layers.1.mlp.experts.w13_weight BF16 3 8 6\n"+
		"model.llm.layers.1.mlp.experts.w2_weight BF16 3 6 4")
	native := tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutNative}))
	for _, c := range []*synth.Checkpoint{s, regrouped(s, native)} {
		equal(t, dict(t, opened(t, c), Options{Layout: LayoutHF}), s.Tensors)
		wantRefused(t, c, LayoutSplit, "alternate")
	}
}

// In layout transformers the rows of gate are above those of up. All layouts can be computed from
// one another.
func TestInklingGateAndUpInTransformers(t *testing.T) {
	const from, to = "model.llm.layers.1.mlp.", "model.language_model.layers.1.mlp."
	s := filled(t, inklingConfig, from+`experts.w13_weight BF16 3 8 6
		model.llm.layers.1.mlp.experts.w2_weight BF16 3 6 4
		model.llm.layers.1.mlp.shared_experts.shared_w13_weight BF16 2 8 6
		model.llm.layers.1.mlp.shared_experts.shared_w2_weight BF16 2 6 4
		model.llm.layers.1.mlp.w13_dn.weight BF16 8 6
		model.llm.layers.1.mlp.w2_md.weight BF16 6 4
		model.llm.layers.1.attn_sconv.weight BF16 6 1 4`)
	both, shared := elements(t, s, from+"experts.w13_weight"),
		elements(t, s, from+"shared_experts.shared_w13_weight")
	dense := elements(t, s, from+"w13_dn.weight")
	renamed := func(key, name string) synth.Tensor {
		x := *s.Find(key)
		x.Name = name
		return x
	}
	want := []synth.Tensor{
		byElement(to+"experts.gate_up_proj", "BF16", []int64{3, 8, 6}, func(i []int64) float32 {
			return both(i[0], i[1]%4*2+i[1]/4, i[2])
		}),
		renamed(from+"experts.w2_weight", to+"experts.down_proj"),
		byElement(to+"shared_experts.gate_proj", "BF16", []int64{2, 4, 6},
			func(i []int64) float32 { return shared(i[0], 2*i[1], i[2]) }),
		byElement(to+"shared_experts.up_proj", "BF16", []int64{2, 4, 6},
			func(i []int64) float32 { return shared(i[0], 2*i[1]+1, i[2]) }),
		renamed(from+"shared_experts.shared_w2_weight", to+"shared_experts.down_proj"),
		byElement(to+"gate_proj.weight", "BF16", []int64{4, 6},
			func(i []int64) float32 { return dense(2*i[0], i[1]) }),
		byElement(to+"up_proj.weight", "BF16", []int64{4, 6},
			func(i []int64) float32 { return dense(2*i[0]+1, i[1]) }),
		renamed(from+"w2_md.weight", to+"down_proj.weight"),
		renamed("model.llm.layers.1.attn_sconv.weight", "model.language_model.layers.1.attn_sconv.conv1d.weight"),
	}
	c := opened(t, s)
	equal(t, dict(t, c, Options{Layout: LayoutTransformers}), want)
	for _, layout := range []string{LayoutNative, LayoutTransformers} {
		saved := opened(t, regrouped(s, tensorsOf(t, dict(t, c, Options{Layout: layout}))))
		for _, other := range Layouts(c) {
			for _, rank := range []EP{{}, {1, 2}} {
				o := Options{Layout: other, EP: rank}
				equal(t, dict(t, saved, o), tensorsOf(t, dict(t, c, o)))
			}
		}
	}
	reshaped(s, from+"w13_dn.weight", "BF16", 7, 6)
	wantRefused(t, s, LayoutTransformers, from+"w13_dn.weight", "[7 6]")
}
