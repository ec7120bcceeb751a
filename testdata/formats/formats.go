// Package formats makes small random checkpoints in every quantized format that the program
// decodes, and computes what their views must show.
//
// It is the slow oracle of the formats: it goes element by element, in the order in which the
// formats define their operations, and shares no code with the program. Numbers are decoded by the
// definitions of their formats. Each operation rounds once to float32, and the result rounds once
// to the dtype of the view.
//
//	for _, c := range formats.All() {
//		k := c.Make(seed)
//		err := k.Write(dir)
//		for _, w := range k.HF {
//			t := w.Tensor("BF16") // what a reader of the hf view must see
//		}
//	}
//
// Shapes are awkward: one row, one column, one group, short groups and unused bits where the format
// has them, three dimensions, eleven experts. Codes are random, so every code occurs. Scales hold
// zeros, negative numbers, subnormals, the largest numbers, infinities and NaN, as far as their
// dtypes have them. Unused bits are random too.
package formats

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

type tensor = synth.Tensor

// Case is one way to store weights.
type Case struct {
	Name string
	make func(b *builder)
}

// All lists the cases, those of one format beside each other.
func All() []Case {
	var all []Case
	for _, kind := range [][]Case{compressed(), gptOSS(), awq(), gptq(), bitsandbytes(), modelOpt(),
		deepSeek(), microscaled(), mistral(), experts()} {
		all = append(all, kind...)
	}
	return all
}

// Checkpoint is a checkpoint with the tensors of its views.
type Checkpoint struct {
	synth.Checkpoint
	HF     []Want // of the layout hf
	Native []Want // of the layout native; nil: the family has none, or other tests know it

	consolidated bool // in Mistral's own layout
}

// Want is one tensor of a view.
type Want struct {
	Name   string
	Shape  []int64
	Values []float32 // in row-major order; nil: the stored tensor passes as it is
	stored *tensor
}

// Tensor is the tensor in the dtype of a view.
func (w Want) Tensor(dtype string) tensor {
	if w.Values == nil {
		return *w.stored
	}
	t := tensor{Name: w.Name, DType: dtype, Shape: w.Shape}
	for _, v := range w.Values {
		t.Data = append(t.Data, synth.Round(dtype, v)...)
	}
	return t
}

// Make makes a checkpoint: the same seed, the same bytes.
func (c Case) Make(seed uint64) *Checkpoint {
	b := &builder{rng: rand.New(rand.NewPCG(seed, 0xf0))}
	b.Config = map[string]any{}
	b.Side = map[string][]byte{}
	c.make(b)
	for _, t := range b.tensors {
		t.Shard = b.rng.IntN(3)
		b.Tensors = append(b.Tensors, *t)
	}
	return &b.Checkpoint
}

// Write writes the checkpoint into dir, which is made if it is missing.
func (c *Checkpoint) Write(dir string) error {
	if !c.consolidated {
		return c.Checkpoint.Write(dir)
	}
	for i := range c.Tensors {
		c.Tensors[i].Shard = 0
	}
	c.Single = true
	if err := c.Checkpoint.Write(dir); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, c.ShardName(0)),
		filepath.Join(dir, "consolidated.safetensors"))
}

// builder collects the tensors of a checkpoint and of its views.
type builder struct {
	Checkpoint
	rng     *rand.Rand
	tensors []*tensor
}

// quantization sets the quantization_config.
func (b *builder) quantization(fields map[string]any) { b.Config["quantization_config"] = fields }

// side adds a JSON file.
func (b *builder) side(name string, fields map[string]any) {
	b.Side[name], _ = json.Marshal(fields) // plain values cannot fail
}

// store adds a tensor that no view shows by itself.
func (b *builder) store(name, dtype string, shape []int64, data []byte) *tensor {
	t := &tensor{Name: name, DType: dtype, Shape: shape, Data: data}
	b.tensors = append(b.tensors, t)
	return t
}

// codes adds a tensor of random bytes.
func (b *builder) codes(name, dtype string, shape ...int64) *tensor {
	t := b.store(name, dtype, shape, nil)
	t.Data = make([]byte, t.Size())
	for i := range t.Data {
		t.Data[i] = byte(b.rng.Uint32())
	}
	return t
}

// scales adds a tensor of random scales with many special ones.
func (b *builder) scales(name, dtype string, shape ...int64) *tensor {
	t := b.store(name, dtype, shape, nil)
	for range t.Size() / int64(synth.Width(dtype)) {
		t.Data = append(t.Data, b.scale(dtype)...)
	}
	return t
}

// integers adds a tensor of given numbers, I32 or I64.
func (b *builder) integers(name, dtype string, numbers ...int64) *tensor {
	t := b.store(name, dtype, []int64{int64(len(numbers))}, nil)
	for _, n := range numbers {
		for k := range synth.Width(dtype) {
			t.Data = append(t.Data, byte(n>>(8*k)))
		}
	}
	return t
}

// pass adds a tensor that views show as it is.
func (b *builder) pass(name, dtype string, shape ...int64) {
	t := b.codes(name, dtype, shape...)
	b.HF = append(b.HF, Want{Name: name, Shape: shape, stored: t})
}

// show adds a tensor to the views. Its matrices have the given value at (matrix, row, column).
func (b *builder) show(name string, shape []int64, value func(e, m, n int64) float32) {
	s := [3]int64{1, 1, 1}
	copy(s[3-len(shape):], shape)
	w := Want{Name: name, Shape: shape, Values: make([]float32, 0, s[0]*s[1]*s[2])}
	for e := range s[0] {
		for m := range s[1] {
			for n := range s[2] {
				w.Values = append(w.Values, value(e, m, n))
			}
		}
	}
	b.HF = append(b.HF, w)
}
