package formats

import "fmt"

// awq lists the formats whose words run along the output rows.
func awq() []Case {
	var all []Case
	for _, group := range []int64{32, 128, -1} {
		name := fmt.Sprint("AWQ, groups of ", group)
		if group < 0 {
			name = "AWQ, one group"
		}
		all = append(all, Case{name, func(b *builder) {
			b.quantization(map[string]any{"quant_method": "awq", "bits": 4, "group_size": group,
				"version": "gemm", "zero_point": true, "modules_to_not_convert": nil})
			awqModules(b, group, "F16", "BF16")
		}})
	}
	return append(all, Case{"AWQ by auto-round", func(b *builder) {
		b.quantization(map[string]any{"quant_method": "auto-round", "bits": 4, "group_size": 32,
			"sym": false, "data_type": "int", "packing_format": "auto_round:auto_awq"})
		awqModules(b, 32, "F16")
	}})
}

// awqModules adds weights of awkward shapes.
func awqModules(b *builder, group int64, scaleDTypes ...string) {
	for i, m := range []int64{8, 16, 40, 72} {
		n := max(group, 1) * []int64{1, 2, 1, 3}[i]
		if group < 0 {
			n = []int64{1, 7, 33, 40}[i]
		}
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		awqWeight(b, module, m, n, group, scaleDTypes[i%len(scaleDTypes)])
		b.pass(module+".bias", "F16", m)
	}
	awqWeight(b, "model.layers.9.mlp.up_proj", 24, max(group, 1)+5, group, "F16") // a short group
	b.pass("model.norm.weight", "F16", 6)
}

// awqOrder has the column of each nibble of a word.
var awqOrder = [8]int64{0, 2, 4, 6, 1, 3, 5, 7}

// awqWeight adds a weight of m rows and n columns. It is stored transposed.
func awqWeight(b *builder, module string, m, n, group int64, scaleDType string) {
	if group < 0 {
		group = n
	}
	codes := b.codes(module+".qweight", "I32", n, m/8)
	zeros := b.codes(module+".qzeros", "I32", ceil(n, group), m/8)
	scales := b.scales(module+".scales", scaleDType, ceil(n, group), m)
	nibble := func(t *tensor, i, column int64) int64 {
		for j, c := range awqOrder {
			if c == column%8 {
				return field(row(t, i), 4, column/8*8+int64(j))
			}
		}
		panic("formats: the order of AWQ has all columns")
	}
	b.show(module+".weight", []int64{m, n}, func(_, i, j int64) float32 {
		g := j / group
		return product(float32(nibble(codes, j, i)-nibble(zeros, g, i)), number(scales, g*m+i))
	})
}

// gptqWay is a way to store a GPTQ weight.
type gptqWay struct {
	bits, group   int64 // group −1: one
	v2, symmetric bool
	ordered       bool // with a g_idx that is not in order
	without       bool // without a g_idx
}

func (w gptqWay) String() string {
	s := fmt.Sprintf("GPTQ %d bit, groups of %d", w.bits, w.group)
	for _, x := range []struct {
		is   bool
		name string
	}{{w.v2, "v2"}, {w.symmetric, "symmetric"}, {w.ordered, "ordered"}, {w.without, "no g_idx"}} {
		if x.is {
			s += ", " + x.name
		}
	}
	return s
}

// gptq lists the formats whose words run along the input columns.
func gptq() []Case {
	var all []Case
	for _, bits := range []int64{2, 3, 4, 8} {
		for _, w := range []gptqWay{{group: 32}, {group: 32, v2: true},
			{group: 32, symmetric: true},
			{group: 32, v2: true, symmetric: true, without: true}, {group: 128, ordered: true},
			{group: 32, ordered: true, symmetric: true, v2: true}, {group: -1},
			{group: 64, without: true},
			{group: -1, v2: true, ordered: true}} {
			w.bits = bits
			all = append(all, Case{w.String(), w.make})
		}
	}
	return append(all,
		Case{"GPTQ by quantize_config.json alone", gptqAside},
		Case{"GPTQ with other bits for some layers", gptqDynamic},
		Case{"GPTQ by auto-round", gptqAutoRound},
	)
}

// config is the quantization_config.
func (w gptqWay) config() map[string]any {
	version := "gptq"
	if w.v2 {
		version = "gptq_v2"
	}
	return map[string]any{"quant_method": "gptq", "bits": w.bits, "group_size": w.group,
		"desc_act": w.ordered, "sym": w.symmetric, "checkpoint_format": version,
		"damp_percent": 0.01, "true_sequential": true, "lm_head": false}
}

func (w gptqWay) make(b *builder) {
	b.quantization(w.config())
	w.modules(b)
}

// modules adds weights of awkward shapes.
func (w gptqWay) modules(b *builder) {
	for i, m := range []int64{32, 64, 32} {
		n := max(w.group, 32) * []int64{1, 3, 2}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		w.weight(b, module, m, n)
		b.pass(module+".bias", "F16", m)
	}
	if w.group > 32 {
		w.weight(b, "model.layers.9.mlp.up_proj", 32, w.group+32) // a short group
	}
}

// weight adds a weight of m rows and n columns. It is stored transposed.
func (w gptqWay) weight(b *builder, module string, m, n int64) {
	size := w.group
	if size < 0 {
		size = n
	}
	groups := ceil(n, size)
	codes := b.codes(module+".qweight", "I32", n*w.bits/32, m)
	zeros := b.codes(module+".qzeros", "I32", groups, m*w.bits/32)
	scales := b.scales(module+".scales", []string{"F16", "BF16"}[b.rng.IntN(2)], groups, m)
	group := make([]int64, n)
	for j := range group {
		group[j] = int64(j) / size
	}
	if w.ordered {
		b.rng.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
	}
	if !w.without {
		b.integers(module+".g_idx", "I32", group...)
	}
	b.show(module+".weight", []int64{m, n}, func(_, i, j int64) float32 {
		z := field(row(zeros, group[j]), w.bits, i)
		if !w.v2 {
			z = (z + 1) % (1 << w.bits)
		}
		if w.symmetric {
			z = 1 << (w.bits - 1)
		}
		q := field(column(codes, i), w.bits, j)
		return product(float32(q-z), number(scales, group[j]*m+i))
	})
}

// gptqAside has the configuration beside config.json, as the first files had it.
func gptqAside(b *builder) {
	w := gptqWay{bits: 4, group: 32}
	config := w.config()
	delete(config, "quant_method")
	delete(config, "checkpoint_format")
	b.side("quantize_config.json", config)
	w.modules(b)
	b.pass("model.norm.weight", "F32", 7)
}

// gptqDynamic has layers with eight bits and layers that are not quantized.
func gptqDynamic(b *builder) {
	w := gptqWay{bits: 4, group: 64, ordered: true}
	config := w.config()
	config["dynamic"] = map[string]any{"-:.*v_proj": map[string]any{},
		"+:.*down_proj": map[string]any{"bits": 8, "group_size": 32, "desc_act": false}}
	b.quantization(config)
	w.weight(b, "model.layers.0.mlp.up_proj", 32, 128)
	b.pass("model.layers.0.self_attn.v_proj.weight", "F16", 8, 4)
	gptqWay{bits: 8, group: 32}.weight(b, "model.layers.0.mlp.down_proj", 4, 96)
}

// gptqAutoRound is v1 without a g_idx.
func gptqAutoRound(b *builder) {
	b.quantization(map[string]any{"quant_method": "auto-round", "bits": 4, "group_size": 32,
		"sym": false, "data_type": "int", "packing_format": "auto_round:auto_gptq",
		"provider": "auto-round", "autoround_version": "0.5.1"})
	gptqWay{bits: 4, group: 32, without: true}.modules(b)
}
