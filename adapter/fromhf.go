package adapter

import (
	"fmt"
	"io"
	"iter"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// StateDict is a view as a value: tensors by name, each computed when it is read. It may be used
// concurrently.
type StateDict struct {
	// Plan is the plan of the view, with the account of every source key.
	Plan *Plan
	// Env reads tensors. It caches the few source tensors transposed last. For parallelism or a
	// larger cache, set another one before reading.
	Env expr.Env

	byName map[string]int
}

// FromHF gives the view that a reference adapter's from_hf gives. By default it has layout
// "native", the dtype of the configuration, the experts of all ranks, and the prediction layers
// that the reference keeps. Only tensors that are asked for are read.
func FromHF(c *Checkpoint, o Options) (*StateDict, error) { return newStateDict(c, o) }

func newStateDict(c *Checkpoint, o Options) (*StateDict, error) {
	plan, err := NewPlan(c, o)
	if err != nil {
		return nil, err
	}
	d := &StateDict{
		Plan:   plan,
		Env:    &recentUnits{},
		byName: make(map[string]int, len(plan.Tensors)),
	}
	for i, t := range plan.Tensors {
		d.byName[t.Name] = i
	}
	return d, nil
}

// Len is the number of tensors.
func (d *StateDict) Len() int { return len(d.Plan.Tensors) }

// All yields the tensors in the order of the plan.
func (d *StateDict) All() iter.Seq[*Lazy] {
	return func(yield func(*Lazy) bool) {
		for i := range d.Plan.Tensors {
			if !yield(d.lazy(i)) {
				return
			}
		}
	}
}

// Tensor finds a tensor by name.
func (d *StateDict) Tensor(name string) (*Lazy, bool) {
	i, ok := d.byName[name]
	if !ok {
		return nil, false
	}
	return d.lazy(i), true
}

func (d *StateDict) lazy(i int) *Lazy {
	t := &d.Plan.Tensors[i]
	return &Lazy{name: t.Name, node: t.Node, env: d.Env}
}

// Lazy is one tensor of a StateDict, or a part of one. Its bytes are row-major and little-endian,
// and computed when they are read. It may be used concurrently.
type Lazy struct {
	name string
	node expr.Node
	env  expr.Env
}

var _ io.ReaderAt = (*Lazy)(nil)

// Name is the tensor's name in the view.
func (t *Lazy) Name() string { return t.name }

// DType is its element type.
func (t *Lazy) DType() safetensors.DType { return t.node.DType() }

// Shape is its shape, not to be changed.
func (t *Lazy) Shape() []int64 { return t.node.Shape() }

// Size is the number of its bytes.
func (t *Lazy) Size() int64 { return t.node.Size() }

// Recipe says in one line how it is computed.
func (t *Lazy) Recipe() string { return t.node.String() }

// ReadAt reads bytes of the tensor as io.ReaderAt says. It reads fewer than len(p) only with an
// error, which is io.EOF at the tensor's end.
func (t *Lazy) ReadAt(p []byte, off int64) (int, error) {
	size := t.Size()
	if off < 0 {
		return 0, fmt.Errorf("%s: read at negative offset %d", t.name, off)
	}
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	if err := t.node.ReadAt(t.env, p[:n], off); err != nil {
		return 0, fmt.Errorf("%s: read at offset %d: %w", t.name, off, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Bytes reads the whole tensor.
func (t *Lazy) Bytes() ([]byte, error) {
	p := make([]byte, t.Size())
	if _, err := t.ReadAt(p, 0); err != nil {
		return nil, err
	}
	return p, nil
}

// Slice keeps [lo, hi) of an axis. It is exact at any offset, also inside a block of scales.
func (t *Lazy) Slice(axis int, lo, hi int64) (*Lazy, error) {
	n, err := expr.Slice(t.node, axis, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return &Lazy{name: t.name, node: n, env: t.env}, nil
}

// Index keeps entry i of the first axis, for example one expert, and drops that axis.
func (t *Lazy) Index(i int64) (*Lazy, error) {
	n, err := expr.Index(t.node, i)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return &Lazy{name: t.name, node: n, env: t.env}, nil
}
