package expr

import (
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// header holds dtype and shape, and the size of the node as one matrix.
type header struct {
	self       node // the node that has this header
	dtype      safetensors.DType
	shape      []int64
	size       int64
	rows, cols int  // the last axis is the columns, all others are the rows; 0, 0 if empty
	item       int  // bytes of an element
	packed     bool // elements are not whole bytes; the node is then one row of bytes
}

func newHeader(d safetensors.DType, shape []int64) (header, error) {
	if d.Bits() == 0 {
		return header{}, fmt.Errorf("%s is not a dtype", d)
	}
	size, err := safetensors.Size(d, shape)
	if err != nil {
		return header{}, err
	}
	if size > math.MaxInt/2 {
		return header{}, fmt.Errorf("%s %v: %d bytes are too many", d, shape, size)
	}
	h := header{dtype: d, shape: shape, size: size, item: d.Bits() / 8}
	switch {
	case d.Bits()%8 != 0:
		h.packed, h.item, h.rows, h.cols = true, 1, 1, int(size)
	case size > 0:
		h.cols = 1
		if len(shape) > 0 {
			h.cols = int(shape[len(shape)-1])
		}
		h.rows = int(size) / h.item / h.cols
	}
	return h, nil
}

// DType returns the dtype of the elements.
func (h *header) DType() safetensors.DType { return h.dtype }

// Shape returns the shape of the tensor.
func (h *header) Shape() []int64 { return h.shape }

// Size returns the size in bytes.
func (h *header) Size() int64 { return h.size }

func (h *header) head() *header { return h }

// ReadAt fills p by rectangles.
func (h *header) ReadAt(env *Env, p []byte, off int64) error { return readAt(h.self, env, p, off) }

// Units reports the units of a range.
func (h *header) Units(off, count int64, yield func(*Unit) bool) bool {
	off, count = h.clip(off, count)
	return count == 0 || h.self.needsRange(off, count, demand{unit: yield})
}

// Ranges reports the file ranges of a range.
func (h *header) Ranges(off, count int64, yield func(f File, off, n int64) bool) bool {
	off, count = h.clip(off, count)
	return count == 0 || h.self.needsRange(off, count, demand{span: yield})
}

// needsRange reports the needs of the hull of the range.
func (h *header) needsRange(off, count int64, d demand) bool {
	return h.self.needs(h.hull(off, count), d)
}

// clip limits a range to the node.
func (h *header) clip(off, n int64) (int64, int64) {
	off = min(max(off, 0), h.size)
	return off, min(max(n, 0), h.size-off)
}

// inside refuses ranges that are not inside the node.
func (h *header) inside(n Node, off, count int64) error {
	if off < 0 || count < 0 || off > h.size-count {
		return fmt.Errorf("%s: bytes [%d, %d) are not inside its %d bytes",
			n, off, off+count, h.size)
	}
	return nil
}

// hull returns the smallest window that contains a byte range.
func (h *header) hull(off, n int64) window {
	item := int64(h.item)
	lo, hi := int(off/item), int((off+n+item-1)/item)
	w := window{lo / h.cols, (hi-1)/h.cols + 1, 0, h.cols}
	if w.rows() == 1 {
		w.c0, w.c1 = lo%h.cols, (hi-1)%h.cols+1
	}
	return w
}
