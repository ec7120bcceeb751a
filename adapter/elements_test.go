package adapter

import (
	"math/rand/v2"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// byElement makes a tensor by computing each of its numbers from its position.
func byElement(name, dtype string, shape []int64, at func(i []int64) float32) synth.Tensor {
	x := synth.Tensor{Name: name, DType: dtype, Shape: shape}
	i := make([]int64, len(shape))
	for range product(shape) {
		x.Data = append(x.Data, synth.Round(dtype, at(i))...)
		for axis := len(i) - 1; axis >= 0; axis-- {
			if i[axis]++; i[axis] < shape[axis] {
				break
			}
			i[axis] = 0
		}
	}
	return x
}

// elements gives the numbers of a tensor of a checkpoint by their positions.
func elements(t *testing.T, c *synth.Checkpoint, name string) func(i ...int64) float32 {
	t.Helper()
	x := c.Find(name)
	if x == nil {
		t.Fatalf("%s: missing", name)
	}
	return func(i ...int64) float32 {
		at := int64(0)
		for axis, n := range i {
			at = at*x.Shape[axis] + n
		}
		if x.DType == "F8_E4M3" {
			return synth.E4M3(x.Data[at])
		}
		return number32(*x, at)
	}
}

// filled is a checkpoint as synthetic describes it, with random contents.
func filled(t *testing.T, config, lines string) *synth.Checkpoint {
	t.Helper()
	s := synthetic(t, config, lines)
	rng := rand.New(rand.NewPCG(31, 32))
	for i := range s.Tensors {
		s.Tensors[i].Data = synth.Random(rng, s.Tensors[i].DType, s.Tensors[i].Shape)
	}
	return s
}

// wantTensor compares one tensor of a view.
func wantTensor(t *testing.T, d *StateDict, want synth.Tensor) {
	t.Helper()
	l := mustTensor(t, d, want.Name)
	got := &StateDict{Plan: &Plan{Tensors: []Tensor{{Name: want.Name, Node: l.node}}}, Env: d.Env,
		byName: map[string]int{want.Name: 0}}
	equal(t, got, []synth.Tensor{want})
}

// wantRefused checks that a layout is refused, and that the error has all of some texts.
func wantRefused(t *testing.T, c *synth.Checkpoint, layout string, texts ...string) {
	t.Helper()
	_, err := NewPlan(opened(t, c), Options{Layout: layout})
	if err == nil {
		t.Errorf("layout %s is not refused, want an error about %q", layout, texts)
		return
	}
	for _, text := range texts {
		if !containsAny(err.Error(), []string{text}) {
			t.Errorf("layout %s: error %q, want one with %q", layout, err, text)
		}
	}
}
