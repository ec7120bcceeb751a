package expr

import "fmt"

// slice keeps a part of an axis of a node that cannot slice itself.
type slice struct {
	header
	of     node
	axis   int
	lo, hi int64

	// Rows of one turn of the axis, here and in the node, and the rows of the node to skip in each
	// turn.
	turn, ofTurn, skip int
}

// Slice keeps [lo, hi) of an axis. A negative axis counts from the end. A range outside the axis is
// an error.
func Slice(n Node, axis int, lo, hi int64) (Node, error) {
	of, err := ours("slice", n)
	if err != nil {
		return nil, err
	}
	if axis, err = axisOf("slice", n, axis); err != nil {
		return nil, err
	}
	switch size := n.Shape()[axis]; {
	case lo < 0 || hi < lo || hi > size:
		return nil, fmt.Errorf("slice: [%d, %d) of axis %d of %s with shape %v",
			lo, hi, axis, n, n.Shape())
	case lo == 0 && hi == size:
		return n, nil
	case lo == hi || n.Size() == 0:
		return newSlice(of, axis, lo, hi)
	}
	return of.slice(axis, lo, hi)
}

func newSlice(of node, axis int, lo, hi int64) (node, error) {
	shape := resized(of.Shape(), axis, hi-lo)
	h, err := newHeader(of.DType(), shape)
	if err != nil {
		return nil, fmt.Errorf("slice: %s: %w", of, err)
	}
	n := &slice{header: h, of: of, axis: axis, lo: lo, hi: hi}
	n.self = n
	if last := len(shape) - 1; axis < last && h.size > 0 {
		inner := product(shape[axis+1 : last])
		n.turn, n.ofTurn, n.skip = int(hi-lo)*inner, int(of.Shape()[axis])*inner, int(lo)*inner
	}
	return n, nil
}

func (n *slice) rect(env *Env, dst []byte, stride int, w window) error {
	for {
		part, rest := n.cut(w)
		if err := n.of.rect(env, dst, stride, part); err != nil || rest.rows() == 0 {
			return err
		}
		dst, w = dst[part.rows()*stride:], rest
	}
}

// cut returns the first rows of w that are contiguous in the node, and the rest of w.
func (n *slice) cut(w window) (part, rest window) {
	if n.axis == len(n.shape)-1 {
		return window{w.r0, w.r1, w.c0 + int(n.lo), w.c1 + int(n.lo)}, window{}
	}
	turn, head, rest := w.cut(n.turn)
	at := turn*n.ofTurn + n.skip
	head.r0, head.r1 = head.r0+at, head.r1+at
	return head, rest
}

func (n *slice) needs(w window, d demand) bool {
	for w.rows() > 0 {
		part, rest := n.cut(w)
		if !n.of.needs(part, d) {
			return false
		}
		w = rest
	}
	return true
}

func (n *slice) transpose() (node, error) { return newTranspose(n) }

func (n *slice) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *slice) index(i int64) (node, error) { return indexed(n, i) }

func (n *slice) String() string {
	return fmt.Sprintf("slice(%s, %d, %d:%d)", n.of, n.axis, n.lo, n.hi)
}
