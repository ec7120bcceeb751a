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
		{"INT4 pack", packConfig, packWeight},
		{"INT8", func(b *builder) {
			b.quantization(compressedConfig("int-quantized", map[string]any{"num_bits": 8,
				"type": "int", "strategy": "channel", "symmetric": false}))
		}, func(b *builder, module string, m, n int64) {
			int8Weight(b, module, m, n, "BF16", true)
		}},
		{"AWQ", func(b *builder) {
			b.quantization(map[string]any{"quant_method": "awq", "bits": 4, "group_size": 32,
				"version": "gemm", "zero_point": true})
		}, func(b *builder, module string, m, n int64) { awqWeight(b, module, m, n, 32, "F16") }},
		{"GPTQ", func(b *builder) { b.quantization(expertsGPTQ.config()) }, expertsGPTQ.weight4},
		{"NVFP4", func(b *builder) {
			b.modelOptConfig("NVFP4", map[string]any{"group_size": 16})
		}, nvfp4},
		{"bitsandbytes", func(b *builder) { b.quantization(expertsNF4.config()) },
			expertsNF4.weight64},
		{"MXFP4", func(b *builder) {
			b.quarkConfig(map[string]any{"dtype": "fp4", "qscheme": "per_group", "group_size": 32})
		}, func(b *builder, module string, m, n int64) {
			mxfp4(b, module+".weight", module+".weight_scale", module+".weight", m, n)
		}},
	} {
		all = append(all, Case{"eleven experts of " + x.name, func(b *builder) {
			x.config(b)
			qwenMoE.experts(b, x.weight)
		}})
	}
	return append(all, publishedMoE()...)
}

var (
	expertsGPTQ = gptqWay{bits: 4, group: 32, ordered: true}
	expertsNF4  = fourBits{kind: "nf4", nested: true}
)

// The weights of formats with more arguments.
func (w gptqWay) weight4(b *builder, module string, m, n int64)   { w.weight(b, module, m, n) }
func (f fourBits) weight64(b *builder, module string, m, n int64) { f.weight(b, module, 64, m, n) }

// moeModel is where a family has its experts in its two layouts, in layer 1.
type moeModel struct {
	config          map[string]any
	inside          string // the field of config.json that holds config; empty: config.json itself
	prefix, native  string
	gate, up, down  string // gate is empty in models without one
	outer, textType string // model types
}

const moeExperts, moeHidden, moeInner = 11, 64, 32

// expertCounts are the fields that say how many experts a layer has.
func expertCounts() map[string]any {
	return map[string]any{"num_hidden_layers": 2, "hidden_size": moeHidden,
		"moe_intermediate_size": moeInner, "num_experts": moeExperts,
		"n_routed_experts":  moeExperts,
		"num_local_experts": moeExperts, "num_attention_heads": 1, "num_key_value_heads": 1,
		"head_dim": 64, "first_k_dense_replace": 1}
}

var qwenMoE = moeModel{outer: "qwen3_moe", prefix: "model.layers.1.mlp.experts.",
	native: "model.layers.1.mlp.experts.", gate: "gate_proj", up: "up_proj", down: "down_proj"}

// publishedMoE are models whose families are published in one format of four or eight bits.
func publishedMoE() []Case {
	var all []Case
	for _, x := range []struct {
		name   string
		config func(b *builder)
		weight func(b *builder, module string, m, n int64)
		moeModel
	}{
		{"Kimi-K2.5", packConfig, packWeight, moeModel{outer: "kimi_k25", textType: "kimi_k2",
			inside: "text_config", prefix: "language_model.model.layers.1.mlp.experts.",
			native: "model.language_model.model.layers.1.mlp.experts.", gate: "gate_proj",
			up: "up_proj", down: "down_proj"}},
		{"Kimi-K3", func(b *builder) {
			b.quantization(compressedConfig("mxfp4-pack-quantized", map[string]any{"num_bits": 4,
				"type": "float", "strategy": "group", "group_size": 32}))
		}, func(b *builder, module string, m, n int64) {
			mxfp4(b, module+".weight_packed", module+".weight_scale", module+".weight", m, n)
		}, moeModel{outer: "kimi_k3", textType: "kimi_linear", inside: "text_config",
			prefix: "language_model.model.layers.1.block_sparse_moe.experts.",
			native: "model.layers.1.mlp.experts.", gate: "w1", up: "w3", down: "w2"}},
		{"DeepSeek-V4", func(b *builder) { b.deepSeekConfig(128) }, deepSeekFP4,
			moeModel{outer: "deepseek_v4", prefix: "layers.1.ffn.experts.",
				native: "model.layers.1.mlp.experts.", gate: "w1", up: "w3", down: "w2"}},
		{"DeepSeek-V4.1", func(b *builder) { b.deepSeekConfig(32) }, deepSeekFP4,
			moeModel{outer: "deepseek_v41", textType: "deepseek_v41_text", inside: "text_config",
				prefix: "layers.1.ffn.experts.", native: "model.layers.1.ffn.experts.", gate: "w1",
				up: "w3", down: "w2"}},
		{"MiniMax-M3", miniMaxConfig, func(b *builder, module string, m, n int64) {
			blocks(b, module+".weight", "F8_E4M3", module+".weight_scale_inv", "U8", m, n, 1, 32)
		}, moeModel{outer: "minimax_m3_vl", inside: "text_config",
			prefix: "language_model.model.layers.1.block_sparse_moe.experts.",
			native: "model.layers.1.mlp.experts.", gate: "w1", up: "w3", down: "w2"}},
		{"Nemotron 3", func(b *builder) {
			b.modelOptConfig("NVFP4", map[string]any{"group_size": 16})
		}, nvfp4, moeModel{outer: "nemotron_h", prefix: "backbone.layers.1.mixer.experts.",
			native: "model.layers.1.mixer.experts.", up: "up_proj", down: "down_proj",
			config: map[string]any{"hybrid_override_pattern": "-E",
				"mlp_hidden_act": "relu2"}}},
	} {
		all = append(all, Case{"eleven experts of " + x.name, func(b *builder) {
			x.config(b)
			x.experts(b, x.weight)
		}})
	}
	return append(all, Case{"eleven experts of gpt-oss", gptOSSModel})
}

func packConfig(b *builder) {
	b.quantization(compressedConfig("pack-quantized", pack{bits: 4, group: 32}.weights()))
}

func packWeight(b *builder, module string, m, n int64) {
	pack{bits: 4, group: 32}.weight(b, module, m, n, "BF16")
}

// describe fills config.json.
func (x moeModel) describe(b *builder) {
	b.Config["model_type"] = x.outer
	into := b.Config
	if x.inside != "" {
		into = map[string]any{"model_type": x.textType}
		b.Config[x.inside] = into
	}
	for _, fields := range []map[string]any{expertCounts(), x.config} {
		for k, v := range fields {
			into[k] = v
		}
	}
}

// experts adds the experts to both layouts. The native one has all experts in one tensor, each
// matrix transposed, gate and up side by side.
func (x moeModel) experts(b *builder, weight func(b *builder, module string, m, n int64)) {
	x.describe(b)
	width := int64(moeInner)
	for e := range moeExperts {
		weight(b, fmt.Sprint(x.prefix, e, ".", x.up), moeInner, moeHidden)
		weight(b, fmt.Sprint(x.prefix, e, ".", x.down), moeHidden, moeInner)
		if x.gate != "" {
			weight(b, fmt.Sprint(x.prefix, e, ".", x.gate), moeInner, moeHidden)
			width = 2 * moeInner
		}
	}
	both := Want{Name: x.native + "gate_and_up_projs", Shape: []int64{moeExperts, moeHidden, width}}
	down := Want{Name: x.native + "down_projs", Shape: []int64{moeExperts, moeInner, moeHidden}}
	for e := range moeExperts {
		for d := range int64(moeHidden) {
			if x.gate != "" {
				both.Values = append(both.Values, b.find(x.key(e, x.gate)).column(d)...)
			}
			both.Values = append(both.Values, b.find(x.key(e, x.up)).column(d)...)
		}
		for i := range int64(moeInner) {
			down.Values = append(down.Values, b.find(x.key(e, x.down)).column(i)...)
		}
	}
	b.Native = slices.DeleteFunc(slices.Clone(b.HF), func(w Want) bool {
		return strings.HasPrefix(w.Name, x.prefix)
	})
	b.Native = append(b.Native, both, down)
}

// key is the key of a weight of an expert in the layout hf.
func (x moeModel) key(e int, name string) string {
	return fmt.Sprint(x.prefix, e, ".", name, ".weight")
}

// gptOSSModel is published grouped, and its native layout only renames the groups.
func gptOSSModel(b *builder) {
	gptOSSConfig(b)
	moeModel{outer: "gpt_oss", config: map[string]any{"num_hidden_layers": 1}}.describe(b)
	gptOSSLayer(b, 0, moeExperts, [2]int64{26, 9}, [2]int64{2, 1})
	for _, w := range b.HF {
		for hf, native := range map[string]string{"gate_up_proj": "gate_and_up_projs",
			"down_proj": "down_projs"} { // biases keep their names
			if prefix, ok := strings.CutSuffix(w.Name, hf); ok {
				w.Name = prefix + native
			}
		}
		b.Native = append(b.Native, w)
	}
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
