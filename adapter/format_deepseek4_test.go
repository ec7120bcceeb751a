package adapter

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

const (
	v4  = `{"model_type": "deepseek_v4", "expert_dtype": "fp4", "quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}}`
	v41 = `{"model_type": "deepseek_v41", "quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [32, 32], "expert_dtype": "fp4"}}`
)

// exponents are random exponents of two, and the ends of what is finite.
func exponents(rng *rand.Rand, name, dtype string, shape ...int64) synth.Tensor {
	s := synth.Tensor{Name: name, DType: dtype, Shape: shape}
	for range s.Size() {
		s.Data = append(s.Data, byte(100+rng.IntN(50)))
	}
	copy(s.Data, []byte{0, 1, 254})
	return s
}

// The experts of DeepSeek-V4 have two codes in a byte that is declared as signed, and an exponent
// for 32 of them.
func TestDeepSeekV4ReadsFP4Experts(t *testing.T) {
	const key = "layers.0.ffn.shared_experts.w2."
	for _, test := range []struct {
		name, config, dtype string
		rows, cols          int64
	}{
		{"V4", v4, "F8_E8M0", 7, 96}, {"V4.1", v41, "F8_E8M0", 7, 96},
		{"bytes as exponents", v4, "U8", 7, 96}, {"no configuration", `{}`, "F8_E8M0", 7, 96},
		{"one row", v4, "F8_E8M0", 1, 64}, {"one group", v4, "F8_E8M0", 3, 32},
	} {
		for _, dtype := range []string{"BF16", "F16", "F32"} {
			t.Run(test.name+" "+dtype, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(31, 32))
				codes := random(rng, key+"weight", "I8", test.rows, test.cols/2)
				copy(codes.Data, []byte{0x80, 0x08, 0xf7})
				groups := ceilDiv(test.cols, 32)
				scale := exponents(rng, key+"scale", test.dtype, test.rows, groups)
				want := synth.Tensor{Name: codes.Name, DType: dtype,
					Shape: []int64{test.rows, test.cols}}
				for i := range test.rows {
					for j := range test.cols {
						code := codes.Data[i*test.cols/2+j/2] >> (j % 2 * 4) & 15
						v := fp4(code) * synth.E8M0(scale.Data[i*groups+j/32])
						want.Data = append(want.Data, synth.Round(dtype, v)...)
					}
				}
				s := sourceOf(t, test.config, codes, scale)
				equal(t, dict(t, opened(t, s), Options{Layout: "hf", DType: dtypes[dtype]}),
					[]synth.Tensor{want})
			})
		}
	}
}

// sourceOf is a checkpoint with a configuration in JSON.
func sourceOf(t *testing.T, config string, all ...synth.Tensor) *synth.Checkpoint {
	t.Helper()
	s, err := parseSettings([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return &synth.Checkpoint{Config: s, Tensors: all}
}

// V4.1 scales its matrices in blocks of 32 × 32, but the table of Engram row by row.
func TestDeepSeekV41ReadsEngramByRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	table := random(rng, "layers.1.engram.embed.weight", "F8_E4M3", 50, 80)
	rows := exponents(rng, "layers.1.engram.embed.scale", "F8_E8M0", 50, 3)
	matrix := random(rng, "layers.1.engram.wkv.weight", "F8_E4M3", 50, 80)
	blocks := exponents(rng, "layers.1.engram.wkv.scale", "F8_E8M0", 2, 3)
	s := sourceOf(t, v41, table, rows, matrix, blocks)
	equal(t, dict(t, opened(t, s), Options{Layout: "hf"}), []synth.Tensor{
		values(table, func(i, j int64) float32 { return number32(rows, i*3+j/32) }),
		values(matrix, func(i, j int64) float32 { return number32(blocks, i/32*3+j/32) }),
	})
}

// Parameters called scale are not scales of weights. They are shown unchanged, beside quantized
// weights too.
func TestParametersCalledScaleAreShown(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	plain := []synth.Tensor{
		random(rng, "hc_head_scale", "F32", 1), random(rng, "layers.0.hc_attn_scale", "F32", 3),
		random(rng, "layers.0.hc_ffn_scale", "F32", 3), random(rng, "layers.0.attn_hc.scale", "F32", 3),
		random(rng, "layers.0.ffn_hc.scale", "F32", 3), random(rng, "layers.0.ffn.gate.tid2eid", "I64", 24, 2),
		random(rng, "layers.0.ffn.gate.bias", "F32", 2), random(rng, "layers.0.buffer", "I8", 4, 16),
		random(rng, "layers.0.norm.weight", "BF16", 4), random(rng, "layers.0.norm.scale", "BF16", 4),
	}
	codes := random(rng, "layers.0.attn.wq_a.weight", "F8_E4M3", 4, 8)
	scale := exponents(rng, "layers.0.attn.wq_a.scale", "F8_E8M0", 1, 1)
	scale.Data[0] = 121
	s := sourceOf(t, v4, append(slices.Clone(plain), codes, scale)...)
	equal(t, dict(t, opened(t, s), Options{Layout: "hf"}), append(plain,
		values(codes, func(_, _ int64) float32 { return number32(scale, 0) })))
}

// Weights of DeepSeek-V4 that lack their scale, or whose scale does not fit, are refused by key.
func TestDeepSeekV4IsRefused(t *testing.T) {
	type shape = []int64
	const w = "layers.0.ffn.experts.0.w1."
	for name, test := range map[string]struct {
		config  string
		tensors []tensor
		want    string
	}{
		"FP8 without a scale":   {v4, []tensor{{w + "weight", "F8_E4M3", shape{8, 32}}, {"norm.weight", "F8_E4M3", shape{8}}, {"norm.scale", "F32", shape{1}}}, w + "weight: FP8 weight without its scale: expected " + w + "scale beside it"},
		"FP4 without a scale":   {v4, []tensor{{w + "weight", "I8", shape{8, 16}}}, "restore the shard with its weight_scale, or with its scale"},
		"a scale alone":         {v4, []tensor{{w + "scale", "F8_E8M0", shape{8, 1}}}, w + "scale: scale without its weight"},
		"blocks over FP4":       {v4, []tensor{{w + "weight", "I8", shape{8, 16}}, {w + "scale", "F8_E8M0", shape{1, 1}}}, w + "scale: scales [1 1] for " + w + "weight [8 16]: its [8 32] values with groups of 32 in a row need [8 1]"},
		"groups of other rows":  {v4, []tensor{{w + "weight", "I8", shape{8, 16}}, {w + "scale", "F8_E8M0", shape{9, 1}}}, w + "scale: scales [9 1]"},
		"a short group":         {v41, []tensor{{w + "weight", "I8", shape{8, 24}}, {w + "scale", "F8_E8M0", shape{8, 2}}}, w + "weight: [8 24] holds the codes [8 48] with groups of 32 in a row: expected"},
		"floats over I8":        {v4, []tensor{{w + "weight", "I8", shape{8, 16}}, {w + "scale", "F32", shape{8, 1}}}, w + "weight: "},
		"Engram in blocks":      {v41, []tensor{{"layers.1.engram.embed.weight", "F8_E4M3", shape{50, 64}}, {"layers.1.engram.embed.scale", "F8_E8M0", shape{2, 2}}}, "layers.1.engram.embed.scale: for layers.1.engram.embed.weight, whose rows are scaled alone"},
		"rows over a matrix":    {v41, []tensor{{"layers.1.engram.wkv.weight", "F8_E4M3", shape{50, 64}}, {"layers.1.engram.wkv.scale", "F8_E8M0", shape{50, 2}}}, "layers.1.engram.wkv.scale: "},
		"larger grid of blocks": {v4, []tensor{{w + "weight", "F8_E4M3", shape{128, 128}}, {w + "scale", "F8_E8M0", shape{2, 1}}}, w + "scale: "},
	} {
		t.Run(name, func(t *testing.T) {
			c := sourceOf(t, test.config)
			for _, x := range test.tensors {
				with(c, x.key, x.dtype, x.shape...)
			}
			_, err := NewPlan(opened(t, c), Options{Layout: "hf"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}
