package adapter

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// weight is a tensor of the model: a stored tensor, or values decoded from several stored tensors.
type weight struct {
	*Stored         // the codes, or the tensor itself if it is not quantized
	hf      string  // its published name
	parts   []int32 // positions in Checkpoint.Tensors of every stored tensor that it consumes
	i       int32   // position in the list of weights
	format  *format // nil: shown unchanged
	decoder decoder // nil: shown unchanged

	value   expr.Node // computed from other weights; nil for a weight of the source
	decoded bool      // some of those are quantized
}

// isDecoded reports whether the values are not stored as such.
func (w *weight) isDecoded() bool { return w.decoder != nil || w.decoded }

// shape returns the shape of the values.
func (w *weight) shape() []int64 {
	switch {
	case w.value != nil:
		return w.value.Shape()
	case w.decoder != nil:
		return w.decoder.shape()
	}
	return w.Shape
}

// node makes the recipe of the tensor: dequantized to d, or unchanged.
func (w *weight) node(d safetensors.DType) (n expr.Node, err error) {
	if w.decoder == nil {
		n, err = expr.Load(&w.Source)
	} else {
		n, err = w.decoder.node(d)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w.Shard, w.Key, err)
	}
	return n, nil
}
