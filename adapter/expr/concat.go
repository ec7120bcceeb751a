package expr

import (
	"fmt"
	"sort"
	"strings"
)

// concat joins nodes along an axis.
type concat struct {
	header
	axis  int
	parts []node
	// ends has the end of each part: in columns if the axis is the last, otherwise in rows of one
	// turn of the axis.
	ends []int
}

// Concat joins nodes along an axis. A negative axis counts from the end. The nodes must have the
// same dtype, and the same shape except for that axis.
func Concat(axis int, nodes ...Node) (Node, error) {
	parts, err := alike("concat", nodes)
	if err != nil {
		return nil, err
	}
	axis, err = axisOf("concat", nodes[0], axis)
	if err != nil {
		return nil, err
	}
	return newConcat(axis, parts)
}

// alike refuses nodes of different dtypes or ranks.
func alike(what string, nodes []Node) ([]node, error) {
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%s of nothing", what)
	}
	parts := make([]node, len(nodes))
	for i, n := range nodes {
		var err error
		if parts[i], err = ours(what, n); err != nil {
			return nil, err
		}
		if n.DType() != nodes[0].DType() || len(n.Shape()) != len(nodes[0].Shape()) {
			return nil, fmt.Errorf("%s: %s is %s %v, but %s is %s %v",
				what, n, n.DType(), n.Shape(), nodes[0], nodes[0].DType(), nodes[0].Shape())
		}
	}
	return parts, nil
}

func newConcat(axis int, parts []node) (node, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	shape, err := joined(axis, parts)
	if err != nil {
		return nil, err
	}
	h, err := newHeader(parts[0].DType(), shape)
	if err != nil {
		return nil, fmt.Errorf("concat: %s …: %w", parts[0], err)
	}
	n := &concat{header: h, axis: axis, parts: parts, ends: make([]int, len(parts))}
	n.self = n
	if h.size > 0 {
		n.findEnds()
	}
	return n, nil
}

// joined returns the shape of nodes joined along an axis.
func joined(axis int, parts []node) ([]int64, error) {
	shape := resized(parts[0].Shape(), axis, 0)
	for _, p := range parts {
		for i, size := range p.Shape() {
			if i != axis && size != shape[i] {
				return nil, fmt.Errorf("concat: %s is %v, but %s is %v: only axis %d may differ",
					p, p.Shape(), parts[0], parts[0].Shape(), axis)
			}
		}
		shape[axis] += p.Shape()[axis]
	}
	return shape, nil
}

func (n *concat) findEnds() {
	end, inner := 0, 1
	if !n.wide() {
		inner = product(n.shape[n.axis+1 : len(n.shape)-1])
	}
	for i, p := range n.parts {
		end += int(p.Shape()[n.axis]) * inner
		n.ends[i] = end
	}
}

// wide reports whether the parts are side by side, in the columns.
func (n *concat) wide() bool { return n.axis == len(n.shape)-1 }

// find returns the part that contains position i.
func (n *concat) find(i int) int {
	return sort.Search(len(n.ends), func(k int) bool { return n.ends[k] > i })
}

// begin returns the first position of a part.
func (n *concat) begin(i int) int {
	if i == 0 {
		return 0
	}
	return n.ends[i-1]
}

func (n *concat) rect(env *Env, dst []byte, stride int, w window) error {
	for at := w; ; {
		i, part, rest := n.cut(w, at)
		p := dst[(at.r0-w.r0)*stride+(at.c0-w.c0)*n.item:]
		if err := n.parts[i].rect(env, p, stride, part); err != nil {
			return err
		}
		if rest.rows() == 0 || rest.cols() == 0 {
			return nil
		}
		at = rest
	}
}

// cut splits the first part off a window. at is the rest of the window w. It returns the number of
// the part, the window inside it, and the new rest.
func (n *concat) cut(w, at window) (i int, part, rest window) {
	if n.wide() {
		i = n.find(at.c0)
		begin, end := n.begin(i), min(at.c1, n.ends[i])
		part = window{at.r0, at.r1, at.c0 - begin, end - begin}
		at.c0 = end
		return i, part, at
	}
	total := n.ends[len(n.ends)-1]
	turn, r := at.r0/total, at.r0%total
	i = n.find(r)
	begin, end := n.begin(i), n.ends[i]
	rows := min(at.rows(), end-r)
	from := turn*(end-begin) + r - begin
	part = window{from, from + rows, at.c0, at.c1}
	at.r0 += rows
	return i, part, at
}

func (n *concat) needs(w window, d demand) bool {
	for at := w; at.rows() > 0 && at.cols() > 0; {
		i, part, rest := n.cut(w, at)
		if !n.parts[i].needs(part, d) {
			return false
		}
		at = rest
	}
	return true
}

func (n *concat) transpose() (node, error) {
	axis := n.axis
	if fromEnd := len(n.shape) - axis; fromEnd <= 2 {
		axis = len(n.shape) - 3 + fromEnd
	}
	return n.each(axis, node.transpose)
}

func (n *concat) slice(axis int, lo, hi int64) (node, error) {
	if axis != n.axis {
		return n.each(n.axis, func(p node) (node, error) { return p.slice(axis, lo, hi) })
	}
	var parts []node
	var begin int64
	for _, p := range n.parts {
		size := p.Shape()[axis]
		from, to := max(lo-begin, 0), min(hi-begin, size)
		begin += size
		if from >= to {
			continue
		}
		if to-from < size {
			var err error
			if p, err = p.slice(axis, from, to); err != nil {
				return nil, err
			}
		}
		parts = append(parts, p)
	}
	return newConcat(axis, parts)
}

func (n *concat) index(i int64) (node, error) {
	if n.axis > 0 {
		return n.each(n.axis-1, func(p node) (node, error) { return p.index(i) })
	}
	for _, p := range n.parts {
		if size := p.Shape()[0]; i >= size {
			i -= size
			continue
		}
		return p.index(i)
	}
	return nil, fmt.Errorf("index %d of %s", i, n)
}

// each applies do to the parts and joins the results.
func (n *concat) each(axis int, do func(node) (node, error)) (node, error) {
	parts, err := mapped(n.parts, do)
	if err != nil {
		return nil, err
	}
	return newConcat(axis, parts)
}

func mapped(nodes []node, do func(node) (node, error)) ([]node, error) {
	out := make([]node, len(nodes))
	for i, n := range nodes {
		var err error
		if out[i], err = do(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (n *concat) String() string {
	axis := n.axis
	if n.wide() {
		axis = -1
	}
	return fmt.Sprintf("concat(%d, %s)", axis, listed(n.parts))
}

// listed shortens long lists to the first node, the last node and the count.
func listed(nodes []node) string {
	if len(nodes) > 3 {
		return fmt.Sprintf("%s, …, %s × %d", nodes[0], nodes[len(nodes)-1], len(nodes))
	}
	texts := make([]string, len(nodes))
	for i, n := range nodes {
		texts[i] = n.String()
	}
	return strings.Join(texts, ", ")
}
