package expr

import (
	"fmt"
	"slices"
	"strings"
)

// reshape gives the same bytes another shape.
type reshape struct {
	header
	of node
}

// Reshape gives the same bytes another shape. A shape of another size is an error.
func Reshape(n Node, shape ...int64) (Node, error) {
	if slices.Equal(n.Shape(), shape) {
		return n, nil
	}
	of, ok := n.(node)
	if !ok {
		return nil, fmt.Errorf("reshape: a %T is not a node of this package", n)
	}
	return newReshape(of, slices.Clone(shape))
}

func newReshape(of node, shape []int64) (node, error) {
	h, err := newHeader(of.DType(), shape)
	if err != nil {
		return nil, fmt.Errorf("reshape: %s to %v: %w", of, shape, err)
	}
	if h.size != of.Size() {
		return nil, fmt.Errorf("reshape: %s with shape %v to %v, which is %d bytes instead of %d",
			of, of.Shape(), shape, h.size, of.Size())
	}
	n := &reshape{h, of}
	n.self = n
	return n, nil
}

// ReadAt fills p.
func (n *reshape) ReadAt(env *Env, p []byte, off int64) error { return n.of.ReadAt(env, p, off) }

func (n *reshape) rect(env *Env, dst []byte, stride int, w window) error {
	if n.of.head().cols == n.cols {
		return n.of.rect(env, dst, stride, w)
	}
	size := w.cols() * n.item
	if w.cols() == n.cols && stride == size {
		return n.of.ReadAt(env, dst[:w.rows()*size], n.at(w.r0, 0))
	}
	for r := w.r0; r < w.r1; r++ {
		if err := n.of.ReadAt(env, dst[(r-w.r0)*stride:][:size], n.at(r, w.c0)); err != nil {
			return err
		}
	}
	return nil
}

func (n *reshape) at(r, c int) int64 { return int64(r*n.cols+c) * int64(n.item) }

func (n *reshape) needs(w window, d demand) bool {
	lo := n.at(w.r0, w.c0)
	return n.of.needsRange(lo, n.at(w.r1-1, w.c1)-lo, d)
}

func (n *reshape) needsRange(off, count int64, d demand) bool {
	return n.of.needsRange(off, count, d)
}

func (n *reshape) transpose() (node, error) { return newTranspose(n) }

func (n *reshape) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *reshape) index(i int64) (node, error) { return indexed(n, i) }

func (n *reshape) String() string {
	shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(n.shape), " ", ", "), "[]")
	return fmt.Sprintf("reshape(%s, %s)", n.of, shape)
}
