package adapter

import (
	"slices"
	"testing"
)

const qwen3VLConfig = `{"model_type": "qwen3_vl_moe", "text_config": {"model_type": "qwen3_vl_moe_text", "hidden_size": 6, "num_hidden_layers": 2, "num_experts": 3}}`

// The same experts, as they are published and as transformers saves them, show the same in every
// layout.
func TestQwen3VLGroupsAreReadBothWays(t *testing.T) {
	const path = "model.language_model.layers.0.mlp.experts."
	published := filled(t, qwen3VLConfig,
		path+"gate_up_proj BF16 3 6 8\n"+path+"down_proj BF16 3 4 6")
	saved := filled(t, qwen3VLConfig, path+"gate_up_proj BF16 3 8 6\n"+path+"down_proj BF16 3 6 4")
	for i, name := range []string{"gate_up_proj", "down_proj"} {
		at := elements(t, published, path+name)
		saved.Tensors[i] = byElement(path+name, "BF16", saved.Tensors[i].Shape,
			func(i []int64) float32 { return at(i[0], i[2], i[1]) })
	}
	c := opened(t, published)
	for _, layout := range Layouts(c) {
		for _, rank := range []EP{{}, {1, 2}} {
			o := Options{Layout: layout, EP: rank}
			equal(t, dict(t, opened(t, saved), o), tensorsOf(t, dict(t, c, o)))
		}
	}
	gateUp := elements(t, published, path+"gate_up_proj")
	d := dict(t, c, Options{Layout: LayoutNative, DType: dtypes["F32"], EP: EP{1, 2}})
	wantTensor(t, d, byElement(path+"gate_and_up_projs", "F32", []int64{1, 6, 8},
		func(i []int64) float32 { return gateUp(2, i[1], i[2]) }))
	d = dict(t, c, Options{Layout: LayoutSplit})
	wantTensor(t, d, byElement(path+"2.up_proj.weight", "BF16", []int64{4, 6},
		func(i []int64) float32 { return gateUp(2, i[1], 4+i[0]) }))
}

// One group that tells the order of the axes decides for all. Where both axes have the hidden size,
// it is the published order.
func TestQwen3VLGroupsLieTheSameWay(t *testing.T) {
	const one, two = "model.language_model.layers.0.mlp.experts.",
		"model.language_model.layers.1.mlp.experts."
	square := filled(t, qwen3VLConfig, one+"gate_up_proj BF16 3 6 6\n"+one+"down_proj BF16 3 6 3")
	at := elements(t, square, one+"gate_up_proj")
	wantTensor(t, dict(t, opened(t, square), Options{Layout: LayoutNative}),
		byElement(one+"gate_and_up_projs", "BF16", []int64{3, 6, 6},
			func(i []int64) float32 { return at(i[0], i[2], i[1]) }))

	square = filled(t, qwen3VLConfig, one+"gate_up_proj BF16 3 6 12\n"+one+"down_proj BF16 3 6 6")
	at = elements(t, square, one+"down_proj")
	wantTensor(t, dict(t, opened(t, square), Options{Layout: LayoutNative}),
		byElement(one+"down_projs", "BF16", []int64{3, 6, 6},
			func(i []int64) float32 { return at(i...) }))

	wantRefused(t,
		synthetic(t, qwen3VLConfig, one+"gate_up_proj BF16 3 6 8\n"+one+"down_proj BF16 3 4 6\n"+
			two+"gate_up_proj BF16 3 8 6\n"+two+"down_proj BF16 3 6 4"), LayoutHF,
		two+"down_proj", one+"down_proj", "the same way")
	untold := synthetic(t, qwen3VLConfig,
		one+"gate_up_proj BF16 3 7 8\n"+one+"down_proj BF16 3 4 7")
	for _, layout := range []string{LayoutNative, LayoutSplit, LayoutTransformers} {
		wantRefused(t, untold, layout, one+"down_proj", "hidden_size", "6 in config.json",
			"--layout hf")
	}
	d := dict(t, opened(t, untold), Options{Layout: LayoutHF}) // as the source has them
	for key, want := range map[string][]int64{"gate_up_proj": {3, 7, 8}, "down_proj": {3, 4, 7}} {
		if got := mustTensor(t, d, one+key).Shape(); !slices.Equal(got, want) {
			t.Errorf("%s: shape %v, want %v", key, got, want)
		}
	}
	wantRefused(t, synthetic(t, `{"model_type": "qwen3_vl_moe", "num_experts": 3}`,
		one+"gate_up_proj BF16 3 6 8\n"+one+"down_proj BF16 3 4 6"), LayoutNative,
		one+"down_proj", "hidden_size is missing")
}
