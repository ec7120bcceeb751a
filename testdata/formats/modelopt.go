package formats

import "fmt"

// modelOpt lists the formats of NVIDIA ModelOpt.
func modelOpt() []Case {
	return []Case{
		{"ModelOpt NVFP4", modelOptNVFP4("NVFP4")},
		{"ModelOpt W4A16_NVFP4", modelOptNVFP4("W4A16_NVFP4")},
		{"ModelOpt FP8", modelOptFP8},
		{"ModelOpt FP8_PER_CHANNEL_PER_TOKEN", modelOptChannels},
		{"ModelOpt FP8_PB_WO", modelOptBlocks},
		{"ModelOpt MXFP8", modelOptMXFP8},
		{"ModelOpt MIXED_PRECISION", modelOptMixed},
		{"ModelOpt NVFP4, grouped along the rows", groupedRows},
		{"ModelOpt NVFP4, grouped along the columns", groupedColumns},
		{"ModelOpt FP8, grouped", groupedFP8},
	}
}

// modelOptConfig describes the quantization in both places.
func (b *builder) modelOptConfig(algo string, more map[string]any) {
	b.quantization(map[string]any{"quant_method": "modelopt", "quant_algo": algo,
		"ignore": []string{"lm_head"}, "producer": map[string]any{"name": "modelopt"}})
	quantization := map[string]any{"quant_algo": algo, "kv_cache_quant_algo": "FP8",
		"exclude_modules": []string{"lm_head"}}
	for k, v := range more {
		quantization[k] = v
	}
	b.side("hf_quant_config.json", map[string]any{
		"producer":     map[string]any{"name": "modelopt", "version": "0.41.0"},
		"quantization": quantization})
	b.pass("lm_head.weight", "BF16", 2, 8)
}

// modelOptNVFP4 has scales of inputs and of the cache beside its weights.
func modelOptNVFP4(algo string) func(b *builder) {
	return func(b *builder) {
		b.modelOptConfig(algo, map[string]any{"group_size": 16})
		for i, m := range []int64{1, 3, 7, 12, 9} {
			module := fmt.Sprintf("model.layers.%d.self_attn.k_proj", i)
			nvfp4(b, module, m, 16*[]int64{1, 3, 5, 2, 1}[i])
			b.codes(module+".input_scale", "F32")
			b.codes(module+".k_scale", "F32")
		}
	}
}

// nvfp4 multiplies the scales of the groups by the second scale. Code 8 is +0.
func nvfp4(b *builder, module string, m, n int64) {
	codes := b.codes(module+".weight", "U8", m, n/2)
	scales := b.scales(module+".weight_scale", "F8_E4M3", m, n/16)
	second := number(b.scales(module+".weight_scale_2", "F32"), 0)
	b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
		t := product(number(scales, m*(n/16)+j/16), second)
		return product(e2m1Positive(low(codes.Data, m*n+j)), t)
	})
}

// modelOptFP8 has one scale for each weight.
func modelOptFP8(b *builder) {
	b.modelOptConfig("FP8", nil)
	for i, m := range []int64{1, 6, 19} {
		module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
		fp8Whole(b, module+".weight", module+".weight_scale", "F32", m, []int64{33, 130, 16}[i])
		b.codes(module+".input_scale", "F32")
	}
}

// fp8Whole adds a matrix of E4M3 with one scale.
func fp8Whole(b *builder, key, scaleKey, scaleDType string, m, n int64) {
	codes := b.codes(key, "F8_E4M3", m, n)
	scale := number(b.scales(scaleKey, scaleDType), 0)
	b.show(key, []int64{m, n}, func(_, m, j int64) float32 {
		return product(number(codes, m*n+j), scale)
	})
}

// modelOptChannels has scales of [M].
func modelOptChannels(b *builder) {
	b.modelOptConfig("FP8_PER_CHANNEL_PER_TOKEN", nil)
	for i, m := range []int64{2, 19} {
		n := []int64{33, 7}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
		codes := b.codes(module+".weight", "F8_E4M3", m, n)
		scales := b.scales(module+".weight_scale", "F32", m)
		b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
			return product(number(codes, m*n+j), number(scales, m))
		})
	}
}

// modelOptBlocks has grids with axes of one between the others.
func modelOptBlocks(b *builder) {
	b.modelOptConfig("FP8_PB_WO", nil)
	for i, m := range []int64{130, 260} {
		n := []int64{300, 20}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
		codes := b.codes(module+".weight", "F8_E4M3", m, n)
		scales := b.scales(module+".weight_scale", "F32", ceil(m, 128), 1, ceil(n, 128), 1)
		b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
			return product(number(codes, m*n+j), number(scales, m/128*ceil(n, 128)+j/128))
		})
	}
}

// modelOptMXFP8 has groups that are cut off at the right end.
func modelOptMXFP8(b *builder) {
	b.modelOptConfig("MXFP8", map[string]any{"group_size": 32})
	for i, n := range []int64{32, 33, 100, 224} {
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		blocks(b, module+".weight", "F8_E4M3", module+".weight_scale", "U8", []int64{1, 3, 8, 5}[i],
			n, 1, 32)
	}
}

// modelOptMixed names the layers of each format, one by its prefix.
func modelOptMixed(b *builder) {
	b.modelOptConfig("MIXED_PRECISION", map[string]any{"quantized_layers": map[string]any{
		"backbone.layers.0.mixer.in_proj": map[string]any{"quant_algo": "FP8"},
		"backbone.layers.1.mixer.experts": map[string]any{"quant_algo": "NVFP4", "group_size": 16},
	}})
	fp8Whole(b, "backbone.layers.0.mixer.in_proj.weight",
		"backbone.layers.0.mixer.in_proj.weight_scale", "F32", 9, 20)
	for e := range 11 {
		nvfp4(b, fmt.Sprintf("backbone.layers.1.mixer.experts.%d.up_proj", e), 5, 32)
	}
	b.pass("backbone.layers.0.mixer.A_log", "F32", 4)
	b.codes("backbone.layers.2.mixer.k_proj.k_scale", "F32")
	b.pass("backbone.layers.2.mixer.k_proj.weight", "BF16", 4, 4)
}

// groupedRows has grouped experts whose nibbles are pairs of rows.
func groupedRows(b *builder) {
	b.modelOptConfig("NVFP4", map[string]any{"group_size": 16})
	for i, name := range []string{"gate_up_proj", "down_proj"} {
		const experts = 11
		in, out := []int64{48, 16}[i], []int64{10, 7}[i]
		key := "model.layers.0.feed_forward.experts." + name
		codes := b.codes(key, "U8", experts, in/2, out)
		scales := b.scales(key+"_weight_scale", "F8_E4M3", experts, in/16, out)
		second := number(b.scales(key+"_weight_scale_2", "F32"), 0)
		b.codes(key+"_input_scale", "F32")
		b.show(key, []int64{experts, in, out}, func(e, m, n int64) float32 {
			pair := codes.Data[(e*(in/2)+m/2)*out+n]
			code := pair & 15
			if m%2 == 1 {
				code = pair >> 4
			}
			t := product(number(scales, (e*(in/16)+m/16)*out+n), second)
			return product(e2m1Positive(code), t)
		})
	}
}

// groupedColumns has grouped experts whose nibbles are pairs of columns.
func groupedColumns(b *builder) {
	b.modelOptConfig("NVFP4", map[string]any{"group_size": 16})
	for i, name := range []string{"gate_up_proj", "down_proj"} {
		const experts = 11
		rows, cols := []int64{10, 7}[i], []int64{48, 16}[i]
		key := "model.layers.0.mlp.experts." + name
		codes := b.codes(key, "U8", experts, rows, cols/2)
		scales := b.scales(key+"_weight_scale", "F8_E4M3", experts, rows, cols/16)
		seconds := b.scales(key+"_weight_scale_2", "F32", experts)
		b.codes(key+"_input_scale", "F32", experts)
		b.show(key, []int64{experts, rows, cols}, func(e, m, n int64) float32 {
			t := product(number(scales, (e*rows+m)*(cols/16)+n/16), number(seconds, e))
			return product(e2m1Positive(low(codes.Data, (e*rows+m)*cols+n)), t)
		})
	}
}

// groupedFP8 has one scale for all experts.
func groupedFP8(b *builder) {
	b.modelOptConfig("FP8", nil)
	key := "model.layers.0.feed_forward.experts.gate_up_proj"
	codes := b.codes(key, "F8_E4M3", 3, 20, 14)
	scale := number(b.scales(key+"_weight_scale", "F32"), 0)
	b.codes(key+"_input_scale", "F32")
	b.show(key, codes.Shape, func(e, m, n int64) float32 {
		return product(number(codes, (e*20+m)*14+n), scale)
	})
}
