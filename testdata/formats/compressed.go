package formats

import "fmt"

// compressed lists the formats of compressed-tensors.
func compressed() []Case {
	var all []Case
	for _, bits := range []int64{4, 8} {
		for _, p := range []pack{{group: 0}, {group: 12}, {group: 32}, {group: 128},
			{group: 0, asymmetric: true}, {group: 12, asymmetric: true},
			{group: 32, asymmetric: true}, {group: 32, ordered: true},
			{group: 32, asymmetric: true, ordered: true}} {
			p.bits = bits
			all = append(all, Case{"compressed-tensors " + p.String(), p.make})
		}
	}
	return append(all,
		Case{"compressed-tensors INT8", int8Quantized(false)},
		Case{"compressed-tensors INT8 asymmetric", int8Quantized(true)},
		Case{"compressed-tensors FP8 channel", floatQuantized("channel")},
		Case{"compressed-tensors FP8 tensor", floatQuantized("tensor")},
		Case{"compressed-tensors FP8 block", floatBlocks},
		Case{"compressed-tensors NVFP4", compressedNVFP4},
		Case{"compressed-tensors MXFP4", compressedMXFP4},
		Case{"compressed-tensors MXFP8", compressedMXFP8},
		Case{"compressed-tensors of several formats", compressedMixed},
	)
}

// compressedConfig is the configuration with one group for all layers.
func compressedConfig(format string, weights map[string]any) map[string]any {
	return map[string]any{
		"quant_method": "compressed-tensors", "format": format, "ignore": []string{"lm_head"},
		"quantization_status": "compressed", "sparsity_config": map[string]any{},
		"transform_config": map[string]any{},
		"config_groups":    map[string]any{"group_0": compressedGroup(format, weights, "Linear")},
	}
}

// compressedGroup is a group of layers with a format of their own.
func compressedGroup(format string, weights map[string]any, targets ...string) map[string]any {
	return map[string]any{"format": format, "targets": targets, "weights": weights,
		"input_activations": nil, "output_activations": nil}
}

// pack is a way to pack integers along the columns of I32.
type pack struct {
	bits, group         int64 // group 0: one for each row
	asymmetric, ordered bool
}

func (p pack) String() string {
	s := fmt.Sprintf("INT%d pack, groups of %d", p.bits, p.group)
	if p.group == 0 {
		s = fmt.Sprintf("INT%d pack, channels", p.bits)
	}
	if p.asymmetric {
		s += ", asymmetric"
	}
	if p.ordered {
		s += ", ordered"
	}
	return s
}

// weights describes the pack in a configuration.
func (p pack) weights() map[string]any {
	w := map[string]any{"num_bits": p.bits, "type": "int", "symmetric": !p.asymmetric,
		"strategy": "group", "group_size": p.group}
	if p.group == 0 {
		w["strategy"], w["group_size"] = "channel", nil
	}
	if p.ordered {
		w["actorder"] = "group"
	}
	return w
}

// make adds weights with one row, one group, one column where there are no groups, and words that
// are partly unused.
func (p pack) make(b *builder) {
	b.quantization(compressedConfig("pack-quantized", p.weights()))
	for i, m := range []int64{1, 3, 8, 17, 33} {
		n := max(p.group, 1) * []int64{1, 3, 1, 2, 3}[i]
		if p.group == 0 {
			n = []int64{1, 33, 40, 7, 65}[i]
		}
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		p.weight(b, module, m, n, []string{"BF16", "F32", "F16"}[i%3])
		b.pass(module+".bias", "BF16", m)
	}
	b.pass("lm_head.weight", "BF16", 5, 12)
}

// weight adds one weight of m rows and n columns.
func (p pack) weight(b *builder, module string, m, n int64, scaleDType string) {
	groups := int64(1)
	if p.group != 0 {
		groups = n / p.group
	}
	codes := b.codes(module+".weight_packed", "I32", m, ceil(n*p.bits, 32))
	scales := b.scales(module+".weight_scale", scaleDType, m, groups)
	b.integers(module+".weight_shape", []string{"I32", "I64"}[b.rng.IntN(2)], m, n)
	group := make([]int64, n)
	for j := range group {
		group[j] = int64(j) / max(n/groups, 1)
	}
	if p.ordered {
		b.rng.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		b.integers(module+".weight_g_idx", "I32", group...)
	}
	var zeros *tensor
	if p.asymmetric {
		zeros = b.codes(module+".weight_zero_point", "I32", ceil(m*p.bits, 32), groups)
	}
	offset := int64(1) << (p.bits - 1)
	b.show(module+".weight", []int64{m, n}, func(_, m, n int64) float32 {
		q, z := field(row(codes, m), p.bits, n)-offset, int64(0)
		if zeros != nil {
			z = field(column(zeros, group[n]), p.bits, m) - offset
		}
		return product(float32(q-z), number(scales, m*groups+group[n]))
	})
}

// int8Quantized stores one I8 for each value.
func int8Quantized(asymmetric bool) func(b *builder) {
	return func(b *builder) {
		b.quantization(compressedConfig("int-quantized", map[string]any{"num_bits": 8,
			"type": "int", "strategy": "channel", "symmetric": !asymmetric}))
		for i, m := range []int64{1, 2, 17, 40} {
			n := []int64{1, 33, 7, 128}[i]
			module := fmt.Sprintf("model.layers.%d.mlp.down_proj", i)
			int8Weight(b, module, m, n, []string{"BF16", "F32", "F16", "BF16"}[i], asymmetric)
		}
		int8Whole(b, "model.layers.9.mlp.down_proj", asymmetric)
	}
}

// int8Weight adds a weight of I8 with a scale, and perhaps a zero point, for each row.
func int8Weight(b *builder, module string, m, n int64, scaleDType string, asymmetric bool) {
	codes := b.codes(module+".weight", "I8", m, n)
	scales := b.scales(module+".weight_scale", scaleDType, m, 1)
	var zeros *tensor
	if asymmetric {
		zeros = b.codes(module+".weight_zero_point", "I8", m, 1)
	}
	b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
		q := number(codes, m*n+j)
		if zeros != nil {
			q -= number(zeros, m)
		}
		return product(q, number(scales, m))
	})
}

// int8Whole adds a weight of I8 with one scale, and perhaps one zero point.
func int8Whole(b *builder, module string, asymmetric bool) {
	codes := b.codes(module+".weight", "I8", 7, 19)
	scale := number(b.scales(module+".weight_scale", "BF16", 1), 0)
	zero := float32(0)
	if asymmetric {
		zero = number(b.codes(module+".weight_zero_point", "I8", 1), 0)
	}
	b.show(module+".weight", codes.Shape, func(_, m, n int64) float32 {
		return product(number(codes, m*19+n)-zero, scale)
	})
}

// floatQuantized stores E4M3 with a scale for each row or for the whole.
func floatQuantized(strategy string) func(b *builder) {
	return func(b *builder) {
		b.quantization(compressedConfig("float-quantized", map[string]any{"num_bits": 8,
			"type": "float", "strategy": strategy, "symmetric": true}))
		for i, m := range []int64{1, 6, 19} {
			n := []int64{33, 130, 16}[i]
			module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
			codes := b.codes(module+".weight", "F8_E4M3", m, n)
			shape := [][]int64{{1}, {}, {1, 1}}[i]
			if strategy == "channel" {
				shape = []int64{m, 1}
			}
			scales := b.scales(module+".weight_scale", []string{"BF16", "F32", "F16"}[i], shape...)
			b.codes(module+".input_scale", "F32", 1)
			b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
				return product(number(codes, m*n+j), number(scales, min(m, elements(scales)-1)))
			})
		}
	}
}

// floatBlocks stores E4M3 in blocks, which may be cut off at the right and the lower end.
func floatBlocks(b *builder) {
	b.quantization(compressedConfig("float-quantized", map[string]any{"num_bits": 8,
		"type": "float", "strategy": "block", "block_structure": []int64{16, 24},
		"symmetric": true}))
	for i, m := range []int64{33, 50, 16} {
		n := []int64{49, 60, 72}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
		blocks(b, module+".weight", "F8_E4M3", module+".weight_scale", "BF16", m, n, 16, 24)
	}
}

// blocks adds a matrix with a scale for each block of h × w.
func blocks(b *builder, key, dtype, scaleKey, scaleDType string, m, n, h, w int64) {
	codes := b.codes(key, dtype, m, n)
	cols := ceil(n, w)
	scales := b.scales(scaleKey, scaleDType, ceil(m, h), cols)
	b.show(key, []int64{m, n}, func(_, m, j int64) float32 {
		return product(number(codes, m*n+j), number(scales, m/h*cols+j/w))
	})
}

// compressedNVFP4 has global scales in both dtypes that were seen.
func compressedNVFP4(b *builder) {
	b.quantization(compressedConfig("nvfp4-pack-quantized", nvfp4Weights()))
	for i, m := range []int64{1, 3, 7, 12, 9, 4} {
		n := 16 * []int64{1, 3, 5, 2, 1, 9}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.gate_proj", i)
		compressedNVFP4Weight(b, module, m, n, []string{"F32", "BF16"}[i/5])
		b.codes(module+".input_global_scale", "F32", 1)
	}
}

// nvfp4Weights describes NVFP4 in a configuration.
func nvfp4Weights() map[string]any {
	return map[string]any{"num_bits": 4, "type": "float", "strategy": "tensor_group",
		"group_size": 16, "symmetric": true, "scale_dtype": "torch.float8_e4m3fn"}
}

// compressedNVFP4Weight divides the scales of the groups by the global scale.
func compressedNVFP4Weight(b *builder, module string, m, n int64, globalDType string) {
	codes := b.codes(module+".weight_packed", "U8", m, n/2)
	scales := b.scales(module+".weight_scale", "F8_E4M3", m, n/16)
	global := number(b.scales(module+".weight_global_scale", globalDType, 1), 0)
	b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
		t := float32(number(scales, m*(n/16)+j/16) / global)
		return product(e2m1(low(codes.Data, m*n+j)), t)
	})
}

// compressedMXFP4 has exponents of both ends.
func compressedMXFP4(b *builder) {
	b.quantization(compressedConfig("mxfp4-pack-quantized", map[string]any{"num_bits": 4,
		"type": "float", "strategy": "group", "group_size": 32, "symmetric": true,
		"scale_dtype": "torch.uint8"}))
	for i, m := range []int64{1, 3, 8, 25} {
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		mxfp4(b, module+".weight_packed", module+".weight_scale", module+".weight", m,
			32*[]int64{1, 4, 3, 2}[i])
	}
}

// mxfp4 adds a weight of E2M1 with an exponent for 32 columns.
func mxfp4(b *builder, codesKey, scaleKey, key string, m, n int64) {
	codes := b.codes(codesKey, "U8", m, n/2)
	scales := b.scales(scaleKey, "U8", m, n/32)
	b.show(key, []int64{m, n}, func(_, m, j int64) float32 {
		return product(e2m1(low(codes.Data, m*n+j)), number(scales, m*(n/32)+j/32))
	})
}

// compressedMXFP8 has groups that are cut off at the right end.
func compressedMXFP8(b *builder) {
	b.quantization(compressedConfig("mxfp8-quantized", map[string]any{"num_bits": 8,
		"type": "float", "strategy": "group", "group_size": 32, "symmetric": true,
		"scale_dtype": "torch.uint8"}))
	for i, n := range []int64{32, 33, 100, 224} {
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		blocks(b, module+".weight", "F8_E4M3", module+".weight_scale", "U8", []int64{1, 3, 8, 5}[i],
			n, 1, 32)
	}
}

// compressedMixed has a format for each kind of layer. Its groups overlap.
func compressedMixed(b *builder) {
	int4, int8 := pack{bits: 4, group: 32}, pack{bits: 8}
	config := compressedConfig("mixed-precision", nil)
	config["config_groups"] = map[string]any{
		"group_0": compressedGroup("nvfp4-pack-quantized", nvfp4Weights(), "Linear"),
		"group_1": compressedGroup("pack-quantized", int4.weights(), "re:.*[.]mlp[.].*"),
		"group_2": compressedGroup("pack-quantized", int8.weights(), "re:.*down_proj$"),
		"group_3": compressedGroup("float-quantized", map[string]any{"num_bits": 8, "type": "float",
			"strategy": "channel", "symmetric": true}, "re:.*lm_head"),
	}
	config["ignore"] = []string{}
	b.quantization(config)
	int4.weight(b, "model.layers.0.mlp.up_proj", 9, 96, "BF16")
	int8.weight(b, "model.layers.0.mlp.down_proj", 6, 13, "BF16")
	compressedNVFP4Weight(b, "model.layers.0.self_attn.q_proj", 8, 48, "F32")
	b.codes("model.layers.0.self_attn.k_proj.k_scale", "BF16", 1)
	b.pass("model.layers.0.self_attn.k_proj.weight", "BF16", 4, 8)
	head := b.codes("lm_head.weight", "F8_E4M3", 11, 20)
	scales := b.scales("lm_head.weight_scale", "BF16", 11, 1)
	b.show("lm_head.weight", head.Shape, func(_, m, n int64) float32 {
		return product(number(head, m*20+n), number(scales, m))
	})
}
