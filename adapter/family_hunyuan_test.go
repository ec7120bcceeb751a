package adapter

import (
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const hunyuanPath = "model.layers.0.mlp.experts."

// hunyuan is a layer of three experts, with a list of their number for each layer.
func hunyuan(t *testing.T) *synth.Checkpoint {
	return filled(t, `{"model_type": "hunyuan_image_3_moe", "num_hidden_layers": 2, "num_experts": [3, 3]}`,
		hunyuanPath+"{0,1,2}.gate_and_up_proj.weight BF16 8 6\n"+
			hunyuanPath+"{0,1,2}.down_proj.weight BF16 6 4")
}

// The upper rows are those of up.
func TestHunyuanHalvesAreUpAndGate(t *testing.T) {
	s := hunyuan(t)
	d := dict(t, opened(t, s), Options{Layout: LayoutNative, EP: EP{1, 2}})
	at := elements(t, s, hunyuanPath+"2.gate_and_up_proj.weight")
	wantTensor(t, d, byElement(hunyuanPath+"gate_and_up_projs", "BF16", []int64{1, 6, 8},
		func(i []int64) float32 { return at((i[2]+4)%8, i[1]) }))
}

// Layouts with published names show the halves together, also of a native save.
func TestHunyuanHalvesStayTogether(t *testing.T) {
	s := hunyuan(t)
	saved := opened(t,
		regrouped(s, tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutNative}))))
	for _, o := range []Options{{Layout: LayoutHF}, {Layout: LayoutSplit},
		{Layout: LayoutHF, EP: EP{0, 2}}, {Layout: LayoutHF, EP: EP{1, 2}}} {
		var want []synth.Tensor
		for _, x := range s.Tensors {
			if e := int(x.Name[len(hunyuanPath)] - '0'); o.EP.Size == 0 || e/2 == o.EP.Rank {
				want = append(want, x)
			}
		}
		equal(t, dict(t, opened(t, s), o), want)
		equal(t, dict(t, saved, o), want)
	}
}

// Experts with gate and up apart are read too.
func TestHunyuanExpertsMayBeApart(t *testing.T) {
	s := hunyuan(t)
	want := tensorsOf(t, dict(t, opened(t, s), Options{Layout: LayoutNative}))
	var apart []synth.Tensor
	for _, x := range s.Tensors {
		head, ok := strings.CutSuffix(x.Name, "gate_and_up_proj.weight")
		if !ok {
			apart = append(apart, x)
			continue
		}
		for i, name := range []string{"up_proj.weight", "gate_proj.weight"} {
			half := len(x.Data) / 2
			apart = append(apart, synth.Tensor{Name: head + name, DType: "BF16",
				Shape: []int64{4, 6}, Data: x.Data[i*half : (i+1)*half]})
		}
	}
	equal(t, dict(t, opened(t, regrouped(s, apart)), Options{Layout: LayoutNative}), want)
}

func TestHunyuanRefusals(t *testing.T) {
	s := hunyuan(t)
	s.Tensors = s.Tensors[1:] // without the first expert's halves
	wantRefused(t, s, LayoutNative, hunyuanPath+"0.gate_and_up_proj.weight", "missing")
	wantRefused(t, s, LayoutHF, hunyuanPath+"0.gate_and_up_proj.weight", "missing")

	s = hunyuan(t)
	reshaped(s, hunyuanPath+"1.gate_and_up_proj.weight", "BF16", 7, 6)
	wantRefused(t, s, LayoutNative, hunyuanPath+"1.gate_and_up_proj.weight", "[7 6]")

	s = hunyuan(t)
	with(s, hunyuanPath+"1.up_proj.weight", "BF16", 4, 6)
	wantRefused(t, s, LayoutNative, hunyuanPath+"1.up_proj.weight", "remove one")

	s = hunyuan(t)
	s.Tensors = s.Tensors[:0]
	with(s, hunyuanPath+"0.up_proj.weight", "BF16", 4, 6)
	wantRefused(t, s, LayoutNative, hunyuanPath+"0.gate_proj.weight")

	s = hunyuan(t)
	s.Config["num_experts"] = []any{3, 4}
	wantRefused(t, s, LayoutNative, "num_experts is [3,4]", "each layer")
	s.Config["num_experts"] = []any{}
	wantRefused(t, s, LayoutNative, "num_experts is []")
	s.Config["num_experts"] = []any{[]any{3}, []any{3}}
	wantRefused(t, s, LayoutNative, "num_experts is [3]")
	s.Config["num_experts"] = []any{2, 2}
	wantRefused(t, s, LayoutNative, "num_experts = 2")
}
