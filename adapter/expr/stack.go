package expr

import (
	"fmt"
	"slices"
)

// stack joins nodes of one shape along a new first axis.
type stack struct {
	header
	parts []node
}

// Stack joins nodes of one shape and dtype along a new first axis.
func Stack(nodes ...Node) (Node, error) {
	parts, err := alike("stack", nodes)
	if err != nil {
		return nil, err
	}
	return newStack(parts)
}

func newStack(parts []node) (node, error) {
	shape := parts[0].Shape()
	for _, p := range parts {
		if !slices.Equal(p.Shape(), shape) {
			return nil, fmt.Errorf("stack: %s is %v, but %s is %v", p, p.Shape(), parts[0], shape)
		}
	}
	h, err := newHeader(parts[0].DType(), append([]int64{int64(len(parts))}, shape...))
	if err != nil {
		return nil, fmt.Errorf("stack: %s …: %w", parts[0], err)
	}
	n := &stack{h, parts}
	n.self = n
	return n, nil
}

// ReadAt fills p.
func (n *stack) ReadAt(env *Env, p []byte, off int64) error {
	if err := n.inside(n, off, int64(len(p))); err != nil {
		return err
	}
	size := n.parts[0].Size()
	for len(p) > 0 {
		i, at := off/size, off%size
		part := p[:min(int64(len(p)), size-at)]
		if err := n.parts[i].ReadAt(env, part, at); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

func (n *stack) rect(env *Env, dst []byte, stride int, w window) error {
	for {
		i, part, rest := w.cut(n.height())
		if err := n.parts[i].rect(env, dst, stride, part); err != nil || rest.rows() == 0 {
			return err
		}
		dst, w = dst[part.rows()*stride:], rest
	}
}

// height returns the rows of each part.
func (n *stack) height() int { return n.rows / len(n.parts) }

func (n *stack) needsRange(off, count int64, d demand) bool {
	size := n.parts[0].Size()
	for count > 0 {
		i, at := off/size, off%size
		part := min(count, size-at)
		if !n.parts[i].needsRange(at, part, d) {
			return false
		}
		off, count = off+part, count-part
	}
	return true
}

func (n *stack) needs(w window, d demand) bool {
	for w.rows() > 0 {
		i, part, rest := w.cut(n.height())
		if !n.parts[i].needs(part, d) {
			return false
		}
		w = rest
	}
	return true
}

func (n *stack) transpose() (node, error) {
	if len(n.shape) == 2 { // a stack of rows: the new axis would be the last
		return newTranspose(n)
	}
	return n.each(node.transpose)
}

func (n *stack) slice(axis int, lo, hi int64) (node, error) {
	if axis == 0 {
		return newStack(n.parts[lo:hi])
	}
	return n.each(func(p node) (node, error) { return p.slice(axis-1, lo, hi) })
}

func (n *stack) index(i int64) (node, error) { return n.parts[i], nil }

func (n *stack) each(do func(node) (node, error)) (node, error) {
	parts, err := mapped(n.parts, do)
	if err != nil {
		return nil, err
	}
	return newStack(parts)
}

func (n *stack) String() string { return "stack(" + listed(n.parts) + ")" }
