package formats

import "fmt"

// deepSeek lists the formats of DeepSeek-V4 and V4.1.
func deepSeek() []Case {
	return []Case{
		{"DeepSeek-V4", func(b *builder) { deepSeekV4(b, "F8_E8M0", 128) }},
		{"DeepSeek-V4 with F32 scales", func(b *builder) { deepSeekV4(b, "F32", 128) }},
		{"DeepSeek-V4.1", deepSeekV41},
		{"DeepSeek-V4 with NVFP4 experts", deepSeekNVFP4},
	}
}

// deepSeekConfig describes the FP8 weights alone: experts are known by their tensors.
func (b *builder) deepSeekConfig(block int64) {
	b.quantization(map[string]any{"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0",
		"activation_scheme": "dynamic", "weight_block_size": []int64{block, block}})
	b.Config["expert_dtype"] = "fp4"
}

// deepSeekV4 has parameters whose names end in scale, and integers.
func deepSeekV4(b *builder, scaleDType string, block int64) {
	b.deepSeekConfig(block)
	for i, m := range []int64{1, block, block + 2, 3*block - 1} {
		module := fmt.Sprintf("layers.%d.attn.wq_b", i)
		blocks(b, module+".weight", "F8_E4M3", module+".scale", scaleDType, m,
			[]int64{33, 2*block + 20, block, block - 1}[i], block, block)
	}
	for e := range 11 {
		for _, projection := range []string{"w1", "w2", "w3"} {
			deepSeekFP4(b, fmt.Sprintf("layers.0.ffn.experts.%d.%s", e, projection), int64(1+e%3),
				int64(32*(1+e%4)))
		}
	}
	b.pass("hc_head_scale", "F32", 1)
	b.pass("layers.0.hc_attn_scale", "F32", 3)
	b.pass("layers.0.attn_hc.scale", "F32", 3)
	b.pass("layers.0.ffn_hc.scale", "BF16", 1)
	b.pass("layers.0.ffn.gate.tid2eid", "I64", 6, 2)
	b.pass("layers.0.ffn.counts", "I8", 5)
}

// deepSeekFP4 adds an expert of E2M1 in I8. Code 8 is +0.
func deepSeekFP4(b *builder, module string, m, n int64) {
	codes := b.codes(module+".weight", "I8", m, n/2)
	scales := b.scales(module+".scale", "F8_E8M0", m, n/32)
	b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
		return product(e2m1Positive(low(codes.Data, m*n+j)), number(scales, m*(n/32)+j/32))
	})
}

// deepSeekV41 has blocks of 32 × 32, and a table with exponents along its rows.
func deepSeekV41(b *builder) {
	deepSeekV4(b, "F8_E8M0", 32)
	blocks(b, "layers.1.engram.embed.weight", "F8_E4M3", "layers.1.engram.embed.scale", "F8_E8M0",
		50, 64, 1, 32)
	blocks(b, "layers.1.engram.wkv.weight", "F8_E4M3", "layers.1.engram.wkv.scale", "F8_E8M0", 64,
		64, 32, 32)
}

// deepSeekNVFP4 tells of its experts in hf_quant_config.json alone.
func deepSeekNVFP4(b *builder) {
	b.Config["expert_dtype"] = "fp4"
	b.side("hf_quant_config.json", map[string]any{
		"producer": map[string]any{"name": "modelopt", "version": "dsv4-nvfp4-experts"},
		"quantization": map[string]any{"quant_algo": "MIXED_PRECISION", "group_size": 16,
			"quantized_layers": map[string]any{
				"layers.0.ffn.experts": map[string]any{"quant_algo": "NVFP4", "group_size": 16}},
			"exclude_modules": []string{"*.attn.*", "head"}}})
	for e := range 11 {
		module := fmt.Sprintf("layers.0.ffn.experts.%d.w1", e)
		nvfp4(b, module, 5, 32)
		b.codes(module+".input_scale", "F32")
	}
	blocks(b, "layers.0.attn.wkv.weight", "F8_E4M3", "layers.0.attn.wkv.scale", "F8_E8M0", 140, 270,
		128, 128)
	b.pass("layers.0.hc_attn_scale", "F32", 3)
}
