package hostile

import (
	"fmt"
	"strings"
)

// configs are broken config.json files.
func configs() []Source {
	text := func(name, text string) Source {
		return Source{Name: name, do: func(f *folder) { f.write("config.json", []byte(text)) }}
	}
	// A bomb is a config.json of the largest size that is read: a text, another one over and over,
	// and an end.
	bomb := func(name, head, piece, end string) Source {
		return Source{Name: name, Big: true, do: func(f *folder) {
			many := strings.Repeat(piece, 1000)
			f.stream("config.json", 16<<20, `{"model_type":"deepseek_v3",`+head,
				func(int) string { return many }, end+"}")
		}}
	}
	// A full one is the largest that is accepted.
	full := func(name, more string) Source {
		s := text(name, `{"model_type":"deepseek_v3",`+more+"}")
		s.Big = true
		return s
	}
	return []Source{
		{Name: "config-is-missing", do: func(f *folder) { f.remove("config.json") }},
		{Name: "config-too-large", do: func(f *folder) {
			f.sparse("config.json", []byte("{"), 1<<40)
		}},
		text("config-is-empty", ``),
		text("config-is-a-list", `[]`),
		text("config-is-null", `null`),
		text("config-is-a-string", `"deepseek_v3"`),
		text("config-ends-early", `{"model_type":"deepseek_v3"`),
		text("config-goes-on", `{"model_type":"deepseek_v3"}{}`),
		text("config-is-not-utf-8", "{\"model_type\":\"\xff\"}"),
		text("config-nests-deep", strings.Repeat(`{"text_config":`, 100_000)),
		text("config-nests-deep-and-ends",
			strings.Repeat(`{"text_config":`, 5_000)+"{}"+strings.Repeat("}", 5_000)),
		text("config-lists-deep-and-ends",
			`{"x":`+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+"}"),
		text("config-nests-to-the-limit",
			`{"model_type":"deepseek_v3","x":`+strings.Repeat("[", 63)+strings.Repeat("]", 63)+"}"),
		text("config-nests-beyond-the-limit",
			`{"model_type":"deepseek_v3","x":`+strings.Repeat("[", 64)+strings.Repeat("]", 64)+"}"),
		bomb("config-of-lists", `"x":[0`, `,[]`, `]`),
		bomb("config-of-objects", `"x":[0`, `,{"":{}}`, `]`),
		bomb("config-of-numbers-far-down", `"x":`+strings.Repeat("[", 62)+`0`, `,0`,
			strings.Repeat("]", 62)),
		full("config-of-as-many-objects-as-there-may-be", `"quantization_config":{"x":[0`+
			strings.Repeat(","+strings.Repeat(`{"":`, 60)+"0"+strings.Repeat("}", 60), 2890)+"]}"),
		full("config-of-as-many-numbers-as-there-may-be",
			`"x":`+strings.Repeat("[", 62)+strings.Repeat("0,", 524_000)+"0"+strings.Repeat("]",
				62)),
		bomb("config-of-not-a-number", `"x":[0`, `,NaN`, `]`),
		text("config-of-one-long-type",
			`{"model_type":"deepseek_v3","model_type":"x`+strings.Repeat(`y`, 100_000)+`"}`),
		text("config-of-one-long-method", `{"model_type":"deepseek_v3","quantization_config":{"quant_method":"x`+strings.Repeat(`y`, 100_000)+`"}}`),
		text("config-of-one-long-block", `{"model_type":"deepseek_v3","quantization_config":{"weight_block_size":"x`+strings.Repeat(`y`, 100_000)+`"}}`),
		text("config-of-one-long-number",
			`{"model_type":"deepseek_v3","num_hidden_layers":1`+strings.Repeat(`0`, 100_000)+`}`),
		text("config-of-one-long-name", `{"model_type":"deepseek_v3","x`+strings.Repeat(`y`,
			100_000)+`":0}`),
		text("config-with-a-number-for-a-type", `{"model_type":3}`),
		text("config-with-an-unknown-type", `{"model_type":"x\u001b[2J"}`),
		text("config-with-a-type-in-a-type", `{"model_type":"deepseek_v3","text_config":{"model_type":"qwen3_moe"}}`),
	}
}

// tensor is one tensor of zeros.
type tensor struct {
	key, dtype string
	shape      []int
}

var width = map[string]int{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U8": 1, "I32": 4, "F32": 4,
	"BF16": 2, "F16": 2, "F64": 8}

// model leaves one shard of tensors full of zeros.
func (f *folder) model(config string, tensors ...tensor) {
	f.write("config.json", []byte(config))
	var entries []string
	at := 0
	for _, t := range tensors {
		size := width[t.dtype]
		for _, n := range t.shape {
			size *= n
		}
		shape := strings.ReplaceAll(fmt.Sprint(t.shape), " ", ",")
		entries = append(entries, entry(t.key, t.dtype, shape, at, at+size))
		at += size
	}
	f.only(file(header(entries...), at))
}

// experts are the three matrices of one expert.
func experts(layer, number string, dtype string, rows, cols int) []tensor {
	p := "model.layers." + layer + ".mlp.experts." + number + "."
	return []tensor{
		{p + "gate_proj.weight", dtype, []int{rows, cols}},
		{p + "up_proj.weight", dtype, []int{rows, cols}},
		{p + "down_proj.weight", dtype, []int{cols, rows}},
	}
}

// plans are sound headers of a model that is not sound.
func plans() []Source {
	const moe = `{"model_type":"deepseek_v3","num_hidden_layers":2,"n_routed_experts":2}`
	plan := func(name, config string, tensors ...tensor) Source {
		return Source{Name: name, do: func(f *folder) { f.model(config, tensors...) }}
	}
	pair := func(name, wType string, w []int, sType string, s []int) Source {
		return plan(name, moe, tensor{weight, wType, w}, tensor{grid, sType, s})
	}
	blocks := func(name, size string) Source {
		return plan(name, `{"model_type":"deepseek_v3","quantization_config":{"weight_block_size":`+size+`}}`,
			tensor{weight, "F8_E4M3", []int{4, 4}}, tensor{grid, "F32", []int{1, 1}})
	}
	fused := func(name, fields, module string, w, s []int) Source {
		key := "model.layers.0." + module + ".weight"
		return plan(name, "{"+fields+"}", tensor{key, "F8_E4M3", w},
			tensor{key + "_scale_inv", "F32", s})
	}
	count := func(name, n string, more ...tensor) Source {
		all := append(experts("1", "0", "BF16", 2, 4), more...)
		return plan(name, `{"model_type":"deepseek_v3","num_hidden_layers":2,"n_routed_experts":`+n+`}`, all...)
	}
	numbered := func(name, layer, number string) Source {
		return plan(name, moe,
			append(append(experts("1", "0", "BF16", 2, 4), experts("1", "1", "BF16", 2, 4)...),
				experts(layer, number, "BF16", 2, 4)...)...)
	}
	return []Source{
		plan("weight-without-a-scale", moe, tensor{weight, "F8_E4M3", []int{2, 2}}),
		plan("scale-without-a-weight", moe, tensor{grid, "F32", []int{1, 1}}),
		plan("scale-of-a-scale", moe, tensor{weight, "F8_E4M3", []int{2, 2}},
			tensor{grid, "F32", []int{1, 1}}, tensor{grid + "_scale_inv", "F32", []int{1, 1}}),
		plan("two-scales", moe, tensor{weight, "F8_E4M3", []int{2, 2}},
			tensor{grid, "F32", []int{1, 1}}, tensor{weight + "_scale", "F32", []int{1, 1}}),
		pair("scale-of-a-weight-that-is-not-quantized", "BF16", []int{2, 2}, "F32", []int{1, 1}),
		pair("scale-of-eight-bit-integers", "U8", []int{2, 2}, "F32", []int{1, 1}),
		pair("grid-too-small", "F8_E4M3", []int{300, 300}, "F32", []int{2, 3}),
		pair("grid-far-too-large", "F8_E4M3", []int{2, 2}, "F32", []int{300, 3000}),
		pair("grid-of-integers", "F8_E4M3", []int{2, 2}, "I32", []int{1, 1}),
		pair("grid-of-doubles", "F8_E4M3", []int{2, 2}, "F64", []int{1, 1}),
		pair("grid-of-nothing", "F8_E4M3", []int{2, 2}, "F32", []int{0, 0}),
		pair("grid-of-four-dimensions", "F8_E4M3", []int{2, 2}, "F32", []int{1, 1, 1, 1}),
		pair("weight-without-dimensions", "F8_E4M3", nil, "F32", nil),
		pair("weight-of-one-dimension", "F8_E4M3", []int{4}, "F32", []int{1}),
		pair("weight-of-five-dimensions", "F8_E4M3", []int{1, 1, 1, 2, 2}, "F32", []int{1, 1}),
		pair("weight-without-rows", "F8_E4M3", []int{0, 128}, "F32", []int{0, 1}),
		pair("weight-without-columns", "F8_E4M3", []int{128, 0}, "F32", []int{1, 0}),
		fused("parts-of-endless-rows-without-columns", `"model_type":"phi3"`, "gate_up_proj",
			[]int{1 << 40, 0}, []int{3, 3}),
		fused("parts-of-negative-rows", `"model_type":"phi3","num_attention_heads":6,"num_key_value_heads":-1,"head_dim":1`, "qkv_proj", []int{4, 4}, []int{3}),
		fused("shards-of-no-rows", `"model_type":"mimo_v2","num_key_value_heads":2147483647`,
			"qkv_proj", []int{0, 128}, []int{0, 1}),
		fused("shards-of-one-row-without-columns",
			`"model_type":"mimo_v2","num_key_value_heads":1073741824`, "qkv_proj",
			[]int{1 << 30, 0}, []int{1 << 30, 0}),
		fused("heads-of-one-row-without-columns", `"model_type":"mimo_v2_flash","num_key_value_heads":2147483647,"head_dim":1`, "k_proj", []int{1<<31 - 1, 0}, []int{1<<31 - 1, 0}),
		blocks("block-of-zero", `[0,0]`),
		blocks("block-negative", `[-128,-128]`),
		blocks("block-of-half", `[0.5,0.5]`),
		blocks("block-huge", `[1e300,1e300]`),
		blocks("block-of-strings", `["128","128"]`),
		blocks("block-of-three", `[128,128,128]`),
		blocks("block-of-nothing", `null`),
		blocks("block-of-the-largest-number", `[9223372036854775807,9223372036854775807]`),
		count("experts-fewer-than-there-are", "0"),
		count("experts-negative", "-1"),
		count("experts-a-million", "1000000"),
		count("experts-two-billion", "2147483647"),
		count("experts-as-many-as-are-planned", "65536"),
		count("experts-more-than-any-number", "1e300"),
		count("experts-a-fraction", "1.5"),
		count("experts-a-string", `"2"`),
		count("experts-null", "null"),
		count("experts-with-a-bias", "1",
			tensor{"model.layers.1.mlp.experts.0.gate_proj.bias", "BF16", []int{2}}),
		count("experts-grouped-and-single", "1",
			tensor{"model.layers.1.mlp.experts.gate_and_up_projs", "BF16", []int{1, 4, 4}}),
		numbered("expert-beyond-the-count", "1", "2"),
		numbered("expert-beyond-32-bits", "1", "2147483648"),
		numbered("expert-beyond-64-bits", "1", "18446744073709551617"),
		numbered("expert-of-thirty-digits", "1", strings.Repeat("1", 30)),
		numbered("expert-with-leading-zeros", "1", "00"),
		numbered("expert-with-a-sign", "1", "-1"),
		numbered("layer-beyond-64-bits", "18446744073709551617", "0"),
		numbered("layer-of-a-thousand-digits", strings.Repeat("9", 1000), "0"),
		numbered("layer-with-leading-zeros", "01", "0"),
		plan("expert-of-nine-digits-without-a-count", `{"model_type":"deepseek_v3"}`,
			experts("1", "999999999", "BF16", 2, 4)...),
		plan("expert-missing", moe, experts("1", "1", "BF16", 2, 4)...),
		plan("expert-without-up", moe, append(experts("1", "0", "BF16", 2, 4)[:1],
			experts("1", "1", "BF16", 2, 4)...)...),
		plan("expert-of-another-shape", moe,
			append(experts("1", "0", "BF16", 2, 4), experts("1", "1", "BF16", 2, 6)...)...),
		plan("expert-of-three-dimensions", `{"model_type":"deepseek_v3","n_routed_experts":1}`,
			append(experts("1", "0", "BF16", 2, 4)[1:],
				tensor{"model.layers.1.mlp.experts.0.gate_proj.weight", "BF16",
					[]int{1, 2, 4}})...),
		plan("expert-of-integers", `{"model_type":"deepseek_v3","n_routed_experts":1}`,
			experts("1", "0", "I32", 2, 4)...),
		plan("expert-without-rows", `{"model_type":"deepseek_v3","n_routed_experts":1}`,
			experts("1", "0", "BF16", 0, 4)...),
		plan("layers-beyond-any-number", `{"model_type":"deepseek_v3","num_hidden_layers":1e300,"n_routed_experts":1}`, experts("1", "0", "BF16", 2, 4)...),
		plan("layers-negative", `{"model_type":"deepseek_v3","num_hidden_layers":-1,"n_routed_experts":1}`, experts("1", "0", "BF16", 2, 4)...),
		plan("merged-name-is-taken", `{"model_type":"deepseek_v3","n_routed_experts":1}`,
			append(experts("1", "0", "BF16", 2, 4),
				tensor{"model.layers.1.mlp.experts.down_projs", "BF16", []int{1, 2, 4}})...),
		{Name: "scales-are-not-numbers", do: func(f *folder) {
			data := file(header(entry(weight, "F8_E4M3", "[1,256]", 0, 256),
				entry(grid, "F32", "[1,2]", 256, 264)), 256)
			f.only(append(data, 0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0x7f)) // not a number, infinity
		}},
	}
}
