package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/fp8"
)

// transposed swaps the last two axes of a node that cannot transpose itself.
type transposed struct {
	header
	of node
}

// Transpose swaps the last two axes. A node of fewer than two axes is an error.
func Transpose(n Node) (Node, error) {
	of, err := ours("transpose", n)
	if err != nil {
		return nil, err
	}
	if len(n.Shape()) < 2 {
		return nil, fmt.Errorf("transpose: %s has shape %v: expected two axes or more",
			n, n.Shape())
	}
	if n.Size() == 0 {
		return newTranspose(of)
	}
	return of.transpose()
}

func newTranspose(of node) (node, error) {
	h, err := newHeader(of.DType(), swapped(of.Shape()))
	if err != nil {
		return nil, fmt.Errorf("transpose: %s: %w", of, err)
	}
	n := &transposed{h, of}
	n.self = n
	return n, nil
}

// rect reads columns of the node into a buffer and transposes them to rows.
func (n *transposed) rect(env Env, dst []byte, stride int, w window) error {
	return eachMatrix(n, n.height(), env, dst, stride, w)
}

func (n *transposed) height() int { return int(n.shape[len(n.shape)-2]) }

func (n *transposed) matrix(env Env, dst []byte, stride, m int, w window) error {
	rows := min(w.rows(), max(1, 16*chunk/(w.cols()*n.item)))
	b := getBuffer(rows * w.cols() * n.item)
	defer b.put()
	for {
		part := window{w.r0, min(w.r1, w.r0+rows), w.c0, w.c1}
		width := part.rows() * n.item
		if err := n.of.rect(env, b.bytes, width, n.inner(m, part)); err != nil {
			return err
		}
		fp8.Transpose(dst, stride, b.bytes, width, part.cols(), part.rows(), n.item)
		if w.r0 = part.r1; w.rows() == 0 {
			return nil
		}
		dst = dst[part.rows()*stride:]
	}
}

// inner returns a window of matrix m as a window of the node.
func (n *transposed) inner(m int, w window) window {
	t := w.turned()
	at := m * n.cols
	t.r0, t.r1 = t.r0+at, t.r1+at
	return t
}

func (n *transposed) needs(w window, d demand) bool {
	for w.rows() > 0 {
		m, head, rest := w.cut(n.height())
		if !n.of.needs(n.inner(m, head), d) {
			return false
		}
		w = rest
	}
	return true
}

func (n *transposed) transpose() (node, error) { return n.of, nil }

func (n *transposed) slice(axis int, lo, hi int64) (node, error) {
	if fromEnd := len(n.shape) - axis; fromEnd <= 2 {
		axis = len(n.shape) - 3 + fromEnd
	}
	of, err := n.of.slice(axis, lo, hi)
	if err != nil {
		return nil, err
	}
	return of.transpose()
}

func (n *transposed) index(i int64) (node, error) {
	if len(n.shape) == 2 {
		return indexed(n, i)
	}
	of, err := n.of.index(i)
	if err != nil {
		return nil, err
	}
	return of.transpose()
}

func (n *transposed) String() string { return fmt.Sprintf("transpose(%s)", n.of) }
