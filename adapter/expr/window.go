package expr

import (
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// header is dtype and shape, and the node as one matrix.
type header struct {
	dtype      safetensors.DType
	shape      []int64
	size       int64
	rows, cols int  // the last axis is the columns, all others are the rows; 0, 0 if empty
	item       int  // bytes of an element
	packed     bool // elements are no whole bytes: a row of bytes then
}

func newHeader(d safetensors.DType, shape []int64) (header, error) {
	if d.Bits() == 0 {
		return header{}, fmt.Errorf("no dtype: %s", d)
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

// DType of the elements.
func (h *header) DType() safetensors.DType { return h.dtype }

// Shape of the tensor.
func (h *header) Shape() []int64 { return h.shape }

// Size in bytes.
func (h *header) Size() int64 { return h.size }

func (h *header) head() *header { return h }

// inside refuses ranges that are not of the node.
func (h *header) inside(n Node, off, count int64) error {
	if off < 0 || count < 0 || off > h.size-count {
		return fmt.Errorf("%s: bytes [%d, %d) are not inside its %d bytes", n, off, off+count, h.size)
	}
	return nil
}

// window is the rows [r0, r1) and columns [c0, c1) of a node.
type window struct{ r0, r1, c0, c1 int }

func (w window) rows() int { return w.r1 - w.r0 }
func (w window) cols() int { return w.c1 - w.c0 }

func (w window) turned() window { return window{w.c0, w.c1, w.r0, w.r1} }

// cut splits off the rows of the first of matrices that are height rows high: its number,
// the window inside it, and what is left of w.
func (w window) cut(height int) (m int, head, rest window) {
	m = w.r0 / height
	end := min(w.r1, (m+1)*height)
	head = window{w.r0 - m*height, end - m*height, w.c0, w.c1}
	w.r0 = end
	return m, head, w
}

// hull is the smallest window that holds a byte range.
func (h *header) hull(off, n int64) window {
	item := int64(h.item)
	lo, hi := int(off/item), int((off+n+item-1)/item)
	w := window{lo / h.cols, (hi-1)/h.cols + 1, 0, h.cols}
	if w.rows() == 1 {
		w.c0, w.c1 = lo%h.cols, (hi-1)%h.cols+1
	}
	return w
}

// clip cuts a range to what is inside the node.
func (h *header) clip(off, n int64) (int64, int64) {
	off = min(max(off, 0), h.size)
	return off, min(max(n, 0), h.size-off)
}

// readAt fills p with the bytes of n from off: first what is left of a row, then whole rows, then
// the beginning of a row. Elements that the range cuts go through a buffer.
func readAt(n node, env *Env, p []byte, off int64) error {
	h := n.head()
	if err := h.inside(n, off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	at := int(off)
	if cut := at % h.item; cut != 0 {
		done := min(h.item-cut, len(p))
		if err := readElement(n, env, p[:done], at/h.item, cut); err != nil {
			return err
		}
		p, at = p[done:], at+done
	}
	whole := len(p) / h.item * h.item
	if err := readElements(n, env, p[:whole], at/h.item); err != nil || whole == len(p) {
		return err
	}
	return readElement(n, env, p[whole:], (at+whole)/h.item, 0)
}

// readElements fills p with whole elements.
func readElements(n node, env *Env, p []byte, at int) error {
	h := n.head()
	width := h.cols * h.item
	for len(p) > 0 {
		r, c := at/h.cols, at%h.cols
		w := window{r, r + len(p)/width, 0, h.cols}
		if c != 0 || w.r1 == w.r0 {
			w = window{r, r + 1, c, min(h.cols, c+len(p)/h.item)}
		}
		count := w.rows() * w.cols()
		if err := n.rect(env, p[:count*h.item], width, w); err != nil {
			return err
		}
		p, at = p[count*h.item:], at+count
	}
	return nil
}

// readElement fills p with bytes of one element, from its byte cut on.
func readElement(n node, env *Env, p []byte, at, cut int) error {
	h := n.head()
	b := getBuffer(h.item)
	defer b.put()
	r, c := at/h.cols, at%h.cols
	if err := n.rect(env, b.bytes, h.item, window{r, r + 1, c, c + 1}); err != nil {
		return err
	}
	copy(p, b.bytes[cut:])
	return nil
}

// unitsOf is Node.Units by the hull of the range.
func unitsOf(n node, off, count int64, yield func(*Unit) bool) bool {
	h := n.head()
	if off, count = h.clip(off, count); count == 0 {
		return true
	}
	return n.units(h.hull(off, count), yield)
}

// rangesOf is Node.Ranges by the hull of the range.
func rangesOf(n node, off, count int64, yield func(f File, off, n int64) bool) bool {
	h := n.head()
	if off, count = h.clip(off, count); count == 0 {
		return true
	}
	return n.ranges(h.hull(off, count), yield)
}
