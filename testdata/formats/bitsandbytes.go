package formats

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// bitsandbytes lists the formats of bitsandbytes.
func bitsandbytes() []Case {
	var all []Case
	for _, f := range []fourBits{{kind: "nf4"}, {kind: "fp4"}, {kind: "nf4", nested: true},
		{kind: "fp4", nested: true}, {kind: "nf4", storage: "BF16", nested: true},
		{kind: "nf4", storage: "F16"}, {kind: "fp4", storage: "F32"}} {
		all = append(all, Case{"bitsandbytes " + f.String(), f.make})
	}
	return append(all, Case{"bitsandbytes INT8", bitsandbytesInt8})
}

// fourBits is a way of bitsandbytes to store codes of four bits.
type fourBits struct {
	kind    string
	nested  bool
	storage string // dtype; empty: U8
}

func (f fourBits) String() string {
	s := f.kind
	if f.nested {
		s += ", nested"
	}
	if f.storage != "" {
		s += ", as " + f.storage
	}
	return s
}

// config is the quantization_config.
func (f fourBits) config() map[string]any {
	storage := map[string]string{"": "uint8", "BF16": "bfloat16", "F16": "float16",
		"F32": "float32"}
	return map[string]any{"quant_method": "bitsandbytes", "load_in_4bit": true,
		"load_in_8bit": false, "bnb_4bit_quant_type": f.kind, "bnb_4bit_compute_dtype": "bfloat16",
		"bnb_4bit_use_double_quant": f.nested, "bnb_4bit_quant_storage": storage[f.storage]}
}

// make adds weights whose rows are whole blocks, and weights whose blocks run over the ends of
// rows. Some have a single block.
func (f fourBits) make(b *builder) {
	b.quantization(f.config())
	for i, x := range []struct{ m, n, block int64 }{{1, 8, 64}, {5, 8, 64}, {24, 33, 64},
		{16, 64, 128}, {3, 1000, 256}, {2, 40, 4096}, {6, 192, 64}, {1, 256, 128}} {
		f.weight(b, fmt.Sprintf("model.layers.%d.mlp.up_proj", i), x.block, x.m, x.n)
	}
	f.weight(b, "model.layers.20.mlp.up_proj", 64, 3, 5, 128) // rows of whole blocks
	f.weight(b, "model.layers.21.mlp.up_proj", 64, 2, 3, 40)
	if f.nested { // more than one block of blocks
		f.weight(b, "model.layers.18.mlp.up_proj", 64, 136, 125)
	}
	if f.storage == "" { // half of the last byte is not used
		f.weight(b, "model.layers.19.mlp.up_proj", 64, 7, 13)
		f.weight(b, "model.layers.17.mlp.up_proj", 64, 1, 1)
	}
	b.pass("lm_head.weight", "BF16", 3, 4)
}

// weight adds a weight whose codes are one run of nibbles in blocks, whatever its rows.
func (f fourBits) weight(b *builder, module string, block int64, shape ...int64) {
	key := module + ".weight"
	dtype := f.storage
	if dtype == "" {
		dtype = "U8"
	}
	total, n := int64(1), shape[len(shape)-1]
	for _, d := range shape {
		total *= d
	}
	codes := b.codes(key, dtype, ceil(total, 2)/int64(synth.Width(dtype)), 1)
	values := b.scales(key+".quant_map", "F32", 16)
	count := ceil(total, block)
	state := map[string]any{"quant_type": f.kind, "blocksize": block, "dtype": "bfloat16",
		"shape": shape}
	// absmax is the scale of a block.
	var absmax func(i int64) float32
	if f.nested {
		absmax = f.nest(b, key, count, state)
	} else {
		stored := b.scales(key+".absmax", "F32", count)
		absmax = func(i int64) float32 { return number(stored, i) }
	}
	text, _ := json.Marshal(state) // plain values cannot fail
	b.store(key+".quant_state.bitsandbytes__"+f.kind, "U8", []int64{int64(len(text))}, text)
	rows := shape[len(shape)-2]
	b.show(key, shape, func(e, i, j int64) float32 {
		at := (e*rows+i)*n + j
		return product(number(values, int64(high(codes.Data, at))), absmax(at/block))
	})
}

// nest stores the scales as codes of eight bits, with scales of their own and an offset.
func (f fourBits) nest(b *builder, key string, count int64,
	state map[string]any) func(int64) float32 {
	codes := b.codes(key+".absmax", "U8", count)
	values := b.scales(key+".nested_quant_map", "F32", 256)
	scales := b.scales(key+".nested_absmax", "F32", ceil(count, 256))
	offset := math.Abs(b.rng.NormFloat64()) / 20 // Python prints a float64
	state["nested_blocksize"], state["nested_dtype"] = 256, "float32"
	state["nested_offset"] = offset
	return func(i int64) float32 {
		return float32(product(number(values, int64(codes.Data[i])), number(scales, i/256)) +
			float32(offset))
	}
}

// bitsandbytesInt8 divides the scales by 127, as a multiplication by the rounded quotient.
func bitsandbytesInt8(b *builder) {
	b.quantization(map[string]any{"quant_method": "bitsandbytes", "load_in_8bit": true,
		"load_in_4bit": false, "llm_int8_threshold": 6.0})
	for i, m := range []int64{1, 9, 40} {
		n := []int64{33, 1, 130}[i]
		module := fmt.Sprintf("model.layers.%d.mlp.up_proj", i)
		codes := b.codes(module+".weight", "I8", m, n)
		scales := b.scales(module+".SCB", "F32", m)
		b.store(module+".weight_format", "U8", nil, []byte{0}) // in the order of rows
		b.show(module+".weight", []int64{m, n}, func(_, m, j int64) float32 {
			return product(product(number(codes, m*n+j), number(scales, m)), 7.874015718698502e-3)
		})
	}
}
