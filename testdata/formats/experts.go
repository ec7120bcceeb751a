package formats

import (
	"fmt"
	"slices"
	"strings"
)

// experts lists models with eleven experts in one layer. Their native layout groups the experts,
// and shows each matrix transposed: gate and up side by side, and down.
func experts() []Case {
	var all []Case
	for _, x := range []struct {
		name   string
		config func(b *builder)
		weight func(b *builder, module string, m, n int64)
	}{
		{"INT4 pack", func(b *builder) {
			b.quantization(compressedConfig("pack-quantized", pack{bits: 4, group: 32}.weights()))
		}, func(b *builder, module string, m, n int64) {
			pack{bits: 4, group: 32}.weight(b, module, m, n, "BF16")
		}},
		{"INT8", func(b *builder) {
			b.quantization(compressedConfig("int-quantized", map[string]any{"num_bits": 8,
				"type": "int", "strategy": "channel", "symmetric": false}))
		}, func(b *builder, module string, m, n int64) { int8Weight(b, module, m, n, "BF16", true) }},
		{"AWQ", func(b *builder) {
			b.quantization(map[string]any{"quant_method": "awq", "bits": 4, "group_size": 32,
				"version": "gemm", "zero_point": true})
		}, func(b *builder, module string, m, n int64) { awqWeight(b, module, m, n, 32) }},
		{"GPTQ", func(b *builder) { b.quantization(expertsGPTQ.config()) }, expertsGPTQ.weight4},
		{"NVFP4", func(b *builder) {
			b.modelOptConfig("NVFP4", map[string]any{"group_size": 16})
		}, nvfp4},
		{"bitsandbytes", func(b *builder) { b.quantization(expertsNF4.config()) }, expertsNF4.weight64},
		{"MXFP4", func(b *builder) {
			b.quarkConfig(map[string]any{"dtype": "fp4", "qscheme": "per_group", "group_size": 32})
		}, func(b *builder, module string, m, n int64) {
			mxfp4(b, module+".weight", module+".weight_scale", module+".weight", m, n)
		}},
	} {
		all = append(all, Case{"eleven experts of " + x.name, func(b *builder) {
			x.config(b)
			expertModel(b, x.weight)
		}})
	}
	return all
}

var (
	expertsGPTQ = gptqWay{bits: 4, group: 32, ordered: true}
	expertsNF4  = fourBits{kind: "nf4", nested: true}
)

func (w gptqWay) weight4(b *builder, module string, m, n int64)   { w.weight(b, module, m, n) }
func (f fourBits) weight64(b *builder, module string, m, n int64) { f.weight(b, module, m, n, 64) }

// expertModel makes a Qwen3-MoE of one layer.
func expertModel(b *builder, weight func(b *builder, module string, m, n int64)) {
	const count, hidden, inner = 11, 64, 32
	for k, v := range map[string]any{"model_type": "qwen3_moe", "num_experts": count,
		"architectures": []string{"Qwen3MoeForCausalLM"}, "num_hidden_layers": 1,
		"hidden_size": hidden, "moe_intermediate_size": inner, "num_attention_heads": 1,
		"num_key_value_heads": 1, "head_dim": 64} {
		b.Config[k] = v
	}
	const prefix = "model.layers.0.mlp.experts."
	for e := range count {
		for _, projection := range []string{"gate_proj", "up_proj"} {
			weight(b, fmt.Sprint(prefix, e, ".", projection), inner, hidden)
		}
		weight(b, fmt.Sprint(prefix, e, ".down_proj"), hidden, inner)
	}
	both := Want{Name: prefix + "gate_and_up_projs", Shape: []int64{count, hidden, 2 * inner}}
	down := Want{Name: prefix + "down_projs", Shape: []int64{count, inner, hidden}}
	for e := range count {
		gate := b.find(fmt.Sprint(prefix, e, ".gate_proj.weight"))
		up := b.find(fmt.Sprint(prefix, e, ".up_proj.weight"))
		projection := b.find(fmt.Sprint(prefix, e, ".down_proj.weight"))
		for d := range int64(hidden) {
			both.Values = append(append(both.Values, gate.column(d)...), up.column(d)...)
		}
		for i := range int64(inner) {
			down.Values = append(down.Values, projection.column(i)...)
		}
	}
	b.Native = slices.DeleteFunc(slices.Clone(b.HF), func(w Want) bool {
		return strings.HasPrefix(w.Name, prefix)
	})
	b.Native = append(b.Native, both, down)
}

// find is a tensor of the hf view.
func (b *builder) find(name string) Want {
	return b.HF[slices.IndexFunc(b.HF, func(w Want) bool { return w.Name == name })]
}

// column has the values of one column of a matrix.
func (w Want) column(j int64) (values []float32) {
	for i := range w.Shape[0] {
		values = append(values, w.Values[i*w.Shape[1]+j])
	}
	return values
}
