package adapter

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// number32 reads element i of a tensor of scales.
func number32(t synth.Tensor, i int64) float32 {
	switch t.DType {
	case "F32":
		return math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	case "BF16":
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
	}
	return synth.E8M0(t.Data[i])
}

// Every form in which published FP8 checkpoints store scales is compared with one multiplication
// per element.
func TestSourcesOfEveryForm(t *testing.T) {
	type shape = []int64
	const rows, cols = 130, 70
	for name, test := range map[string]struct {
		config       string
		key          string // of the scale, after "x."
		dtype        string
		weight, grid shape
		scale        func(e, i, j int64) int64 // the position of the scale
	}{
		"DeepSeek":                  {block128, "weight_scale_inv", "F32", shape{rows, cols}, shape{2, 1}, func(_, i, _ int64) int64 { return i / 128 }},
		"Qwen":                      {block128, "weight_scale_inv", "BF16", shape{rows, cols}, shape{2, 1}, func(_, i, _ int64) int64 { return i / 128 }},
		"DeepSeek-V4":               {block128, "scale", "F8_E8M0", shape{rows, cols}, shape{2, 1}, func(_, i, _ int64) int64 { return i / 128 }},
		"DeepSeek without a config": {noConfig, "weight_scale_inv", "F32", shape{rows, 300}, shape{2, 3}, func(_, i, j int64) int64 { return i/128*3 + j/128 }},
		"compressed-tensors blocks": {ctBlock, "weight_scale", "BF16", shape{rows, cols}, shape{3, 3}, func(_, i, j int64) int64 { return i/64*3 + j/32 }},
		"compressed-tensors rows":   {ctChannel, "weight_scale", "BF16", shape{rows, cols}, shape{rows, 1}, func(_, i, _ int64) int64 { return i }},
		"ModelOpt rows":             {noConfig, "weight_scale", "F32", shape{rows, cols}, shape{rows}, func(_, i, _ int64) int64 { return i }},
		"ModelOpt":                  {noConfig, "weight_scale", "F32", shape{rows, cols}, shape{}, func(_, _, _ int64) int64 { return 0 }},
		"AutoFP8":                   {perTensor, "weight_scale", "F32", shape{rows, cols}, shape{1}, func(_, _, _ int64) int64 { return 0 }},
		"Mistral":                   {perTensor, "weight_scale_inv", "BF16", shape{rows, cols}, shape{}, func(_, _, _ int64) int64 { return 0 }},
		"Mistral's own":             {noConfig, "qscale_weight", "F32", shape{rows, cols}, shape{}, func(_, _, _ int64) int64 { return 0 }},
		"stack, one each":           {perTensor, "weight_scale_inv", "BF16", shape{3, 20, 30}, shape{3, 1, 1}, func(e, _, _ int64) int64 { return e }},
		"stack, rows":               {ctChannel, "weight_scale", "F32", shape{3, 20, 30}, shape{3, 20, 1}, func(e, i, _ int64) int64 { return e*20 + i }},
		"stack, blocks":             {block50, "weight_scale_inv", "F32", shape{3, 30, 60}, shape{3, 2, 2}, func(e, i, j int64) int64 { return e*4 + i/25*2 + j/50 }},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			w := synth.Tensor{Name: "x.weight", DType: "F8_E4M3", Shape: test.weight,
				Data: synth.Random(rng, "F8_E4M3", test.weight)}
			s := synth.Tensor{Name: "x." + test.key, DType: test.dtype, Shape: test.grid}
			if test.dtype == "F8_E8M0" {
				s.Data = []byte{120, 131}
			} else {
				s.Data = synth.Random(rng, test.dtype, test.grid)
			}
			want := synth.Tensor{Name: w.Name, DType: "F16", Shape: w.Shape}
			lead := product(w.Shape) / (w.Shape[len(w.Shape)-2] * w.Shape[len(w.Shape)-1])
			m, n := w.Shape[len(w.Shape)-2], w.Shape[len(w.Shape)-1]
			for e := range lead {
				for i := range m {
					for j := range n {
						f := synth.E4M3(w.Data[(e*m+i)*n+j]) * number32(s, test.scale(e, i, j))
						want.Data = append(want.Data, synth.Round("F16", f)...)
					}
				}
			}
			c := &synth.Checkpoint{Config: configured(t, test.config),
				Tensors: []synth.Tensor{w, s}}
			equal(t, dict(t, opened(t, c), Options{DType: dtypes["F16"]}), []synth.Tensor{want})
		})
	}
}

// Grouped experts of Mistral-Small-4 have no ".weight" in their key.
func TestGroupedQuantizedExperts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const p = "model.layers.0.mlp.experts."
	s := &synth.Checkpoint{Config: map[string]any{
		"model_type": "deepseek_v3", "n_routed_experts": 2, "num_hidden_layers": 1,
		"quantization_config": map[string]any{"quant_method": "fp8", "weight_block_size": nil},
	}}
	for key, shape := range map[string][]int64{"gate_up_proj": {2, 12, 10},
		"down_proj": {2, 10, 6}} {
		s.Tensors = append(s.Tensors,
			synth.Tensor{Name: p + key, DType: "F8_E4M3", Shape: shape,
				Data: synth.Random(rng, "F8_E4M3", shape)},
			synth.Tensor{Name: p + key + "_scale_inv", DType: "F32", Shape: []int64{2, 1, 1},
				Data: synth.Random(rng, "F32", []int64{2})},
			synth.Tensor{Name: p + key + "_activation_scale", DType: "F32", Shape: []int64{2},
				Data: make([]byte, 8)})
	}
	var want []synth.Tensor
	for e := range int64(2) {
		for _, part := range []struct {
			from, to   string
			first, end int64
		}{{"gate_up_proj", "gate_proj", 0, 6}, {"gate_up_proj", "up_proj", 6, 12},
			{"down_proj", "down_proj", 0, 10}} {
			w, scale := s.Find(p+part.from), number32(*s.Find(p + part.from + "_scale_inv"), e)
			n := w.Shape[2]
			x := synth.Tensor{Name: p + string('0'+rune(e)) + "." + part.to + ".weight",
				DType: "BF16", Shape: []int64{part.end - part.first, n}}
			for i := part.first; i < part.end; i++ {
				for j := range n {
					x.Data = append(x.Data, synth.Round("BF16",
						synth.E4M3(w.Data[(e*w.Shape[1]+i)*n+j])*scale)...)
				}
			}
			want = append(want, x)
		}
	}
	equal(t, dict(t, opened(t, s), Options{Layout: "hf"}), want)
}
