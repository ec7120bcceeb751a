package expr

import (
	"encoding/binary"
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// scaledBy multiplies the entries of the first axis of a node by the values of a vector, or all by
// the only value of a vector.
type scaledBy struct {
	header
	of, by   node
	all      bool
	from, to fp8.Format // of the node, and of the result
	values   fp8.Format
	height   int // rows under one value; 0 if the rows of a vector have a value in each column
}

// Product multiplies entry i of the first axis of n by value i of the vector by. The product is
// computed in F32 and rounded to the promoted dtype of both: that of both if they are equal,
// otherwise F32. Only F32, BF16 and F16 can be multiplied.
func Product(n, by Node) (Node, error) {
	of, err := ours("product", n)
	if err != nil {
		return nil, err
	}
	v, err := ours("product", by)
	if err != nil {
		return nil, err
	}
	if s, b := n.Shape(), by.Shape(); len(s) == 0 || len(b) != 1 || b[0] != s[0] {
		return nil, fmt.Errorf("product: %s with shape %v by %s with shape %v: "+
			"expected a vector with a value for each entry of the first axis", n, s, by, b)
	}
	return newScaledBy(of, v, false)
}

func newScaledBy(of, by node, all bool) (node, error) {
	from, ok := plain(of.DType())
	values, okBy := plain(by.DType())
	if !ok || !okBy {
		return nil, fmt.Errorf("product: %s of %s by %s of %s: expected F32, BF16 or F16",
			of, of.DType(), by, by.DType())
	}
	d := of.DType()
	if d != by.DType() {
		d = safetensors.F32
	}
	h, err := newHeader(d, of.Shape())
	if err != nil {
		return nil, fmt.Errorf("product: %s: %w", of, err)
	}
	n := &scaledBy{header: h, of: of, by: by, all: all, from: from, values: values}
	n.to, _ = plain(d)
	switch {
	case h.size == 0:
	case all:
		n.height = h.rows
	case len(h.shape) > 1:
		n.height = h.rows / int(h.shape[0])
	}
	n.self = n
	return n, nil
}

func (n *scaledBy) rect(env Env, dst []byte, stride int, w window) error {
	of := n.valuesOf(w)
	by := getFloats(of.cols())
	defer by.put()
	if err := n.load(env, by.values, of); err != nil {
		return err
	}
	wide := getBuffer(4 * w.cols())
	defer wide.put()
	return inStrips(n.of, env, w, func(r0 int, src []byte, width, rows int) {
		for r := range rows {
			fp8.Convert(wide.bytes, fp8.F32, src[r*width:], n.from, w.cols())
			if n.height > 0 {
				scaleFloats(wide.bytes, by.values[(w.r0+r0+r)/n.height-of.c0])
			} else {
				multiplyFloats(wide.bytes, by.values)
			}
			fp8.Convert(dst[(r0+r)*stride:], n.to, wide.bytes, fp8.F32, w.cols())
		}
		overflowed(env, n.to, dst[r0*stride:], stride, rows, w.cols())
	})
}

// valuesOf returns the window of the vector that multiplies a window of the node.
func (n *scaledBy) valuesOf(w window) window {
	if n.height == 0 {
		return w
	}
	return window{0, 1, w.r0 / n.height, (w.r1-1)/n.height + 1}
}

// load reads values of the vector.
func (n *scaledBy) load(env Env, dst []float32, w window) error {
	b := getBuffer(n.values.Size() * len(dst))
	defer b.put()
	if err := n.by.rect(env, b.bytes, len(b.bytes), w); err != nil {
		return err
	}
	fp8.Scales(dst, b.bytes, n.values)
	return nil
}

// multiplyFloats multiplies little-endian float32s in place, each by a value of its own. Every NaN
// becomes the positive quiet NaN.
func multiplyFloats(b []byte, by []float32) {
	for i, v := range by {
		one := b[4*i:]
		binary.LittleEndian.PutUint32(one, scaled(binary.LittleEndian.Uint32(one), v))
	}
}

func (n *scaledBy) needs(w window, d demand) bool {
	return n.by.needs(n.valuesOf(w), d) && n.of.needs(w, d)
}

func (n *scaledBy) transpose() (node, error) {
	if len(n.shape) == 2 && !n.all {
		return newTranspose(n)
	}
	return n.over(n.of.transpose())
}

func (n *scaledBy) slice(axis int, lo, hi int64) (node, error) {
	if axis > 0 || n.all {
		return n.over(n.of.slice(axis, lo, hi))
	}
	of, err := n.of.slice(axis, lo, hi)
	if err != nil {
		return nil, err
	}
	by, err := n.by.slice(0, lo, hi)
	if err != nil {
		return nil, err
	}
	return newScaledBy(of, by, false)
}

// index keeps one value of the vector for all elements.
func (n *scaledBy) index(i int64) (node, error) {
	of, err := n.of.index(i)
	if err != nil || n.all {
		return n.over(of, err)
	}
	by, err := n.one(i)
	if err != nil {
		return nil, err
	}
	return newScaledBy(of, by, true)
}

// one returns a vector of one value. A slice of the whole axis is not allowed for nodes.
func (n *scaledBy) one(i int64) (node, error) {
	if n.shape[0] == 1 {
		return n.by, nil
	}
	return n.by.slice(0, i, i+1)
}

func (n *scaledBy) over(of node, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	return newScaledBy(of, n.by, n.all)
}

func (n *scaledBy) String() string { return fmt.Sprintf("product(%s, %s)", n.of, n.by) }
