package expr

import "fmt"

// swapRows gives the entries of the first axis another order: [outer, inner, rest] becomes [outer,
// rest, inner].
type swapRows struct {
	header
	of                 node
	matrix             node // of, with two axes or more
	outer, inner, rest int
	height             int // rows of the matrix for each entry
}

// SwapRows gives the rows of n, those of its first axis, another order. It takes them as [outer,
// inner, rest] and shows them as [outer, rest, inner]. So SwapRows(n, heads, 2) turns the two
// halves of each head into pairs, and SwapRows(n, heads, d/2) undoes it.
func SwapRows(n Node, outer, inner int64) (Node, error) {
	of, err := ours("swap rows", n)
	if err != nil {
		return nil, err
	}
	s := n.Shape()
	if len(s) == 0 || outer < 1 || inner < 1 || s[0]%outer != 0 || s[0]/outer%inner != 0 {
		return nil, fmt.Errorf("swap rows: %s has shape %v: expected a number of rows that "+
			"divides by %d × %d", n, s, outer, inner)
	}
	rest := s[0] / outer / inner
	if inner == 1 || rest == 1 || n.Size() == 0 {
		return n, nil
	}
	if m, ok := of.(*swapRows); ok && m.outer == int(outer) && m.inner == int(rest) {
		return m.of, nil
	}
	return newSwapRows(of, int(outer), int(inner))
}

// newSwapRows is for a node that is not empty, with a fitting number of rows.
func newSwapRows(of node, outer, inner int) (node, error) {
	h, err := newHeader(of.DType(), of.Shape())
	if err != nil {
		return nil, fmt.Errorf("swap rows: %s: %w", of, err)
	}
	count := int(h.shape[0])
	n := &swapRows{header: h, of: of, matrix: of, outer: outer, inner: inner,
		rest: count / outer / inner}
	if len(h.shape) == 1 {
		if n.matrix, err = newReshape(of, []int64{h.shape[0], 1}); err != nil {
			return nil, err
		}
	}
	n.height = n.matrix.head().rows / count
	n.self = n
	return n, nil
}

// turn returns the entries of one turn of the outer axis.
func (n *swapRows) turn() int { return n.inner * n.rest }

// from returns the entry of the source that is entry i of the node.
func (n *swapRows) from(i int) int {
	at := i % n.turn()
	return i - at + at%n.inner*n.rest + at/n.inner
}

// to returns the entry of the node that is entry i of the source.
func (n *swapRows) to(i int) int {
	at := i % n.turn()
	return i - at + at%n.rest*n.inner + at/n.rest
}

func (n *swapRows) rect(env Env, dst []byte, stride int, w window) error {
	w, stride = n.upright(w, stride)
	for at := w; at.rows() > 0; {
		p, taken := n.cut(at)
		for ; p.count > 0; p.skip() {
			if err := n.move(env, dst, stride, w, p.window(w)); err != nil {
				return err
			}
		}
		at.r0 += taken
	}
	return nil
}

// upright returns a window of a vector as one of a column.
func (n *swapRows) upright(w window, stride int) (window, int) {
	if len(n.shape) == 1 {
		return w.turned(), n.item
	}
	return w, stride
}

func (n *swapRows) needs(w window, d demand) bool {
	w, _ = n.upright(w, 0)
	for at := w; at.rows() > 0; {
		p, taken := n.cut(at)
		for ; p.count > 0; p.skip() {
			if !n.matrix.needs(p.window(w), d) {
				return false
			}
		}
		at.r0 += taken
	}
	return true
}

// pieces are runs of rows of the source. Each has as many rows, and they begin step rows apart.
type pieces struct{ first, rows, step, count int }

func (p *pieces) skip() { p.first, p.count = p.first+p.step, p.count-1 }

// window returns the first piece, with the columns of w.
func (p *pieces) window(w window) window { return window{p.first, p.first + p.rows, w.c0, w.c1} }

// cut returns the source of the first rows of w, and the number of these rows. They are a part of
// an entry, whole turns of the outer axis, or a box of entries inside one turn.
func (n *swapRows) cut(w window) (p pieces, taken int) {
	if at := w.r0 % n.height; at > 0 || w.rows() < n.height {
		taken = min(n.height-at, w.rows())
		return pieces{first: n.from(w.r0/n.height)*n.height + at, rows: taken, count: 1}, taken
	}
	i, count := w.r0/n.height, w.rows()/n.height
	at := i % n.turn()
	if at == 0 && count >= n.turn() {
		taken = count / n.turn() * n.turn() * n.height
		return pieces{first: w.r0, rows: taken, count: 1}, taken
	}
	count = min(count, n.turn()-at)
	p = pieces{first: n.from(i), rows: 1, step: n.rest}
	if at %= n.inner; at == 0 && count >= n.inner {
		p.rows, p.count = count/n.inner, n.inner
	} else {
		p.count = min(n.inner-at, count)
	}
	taken = p.rows * p.count * n.height
	return p.scaled(n.height, n.matrix.head().cols*n.item), taken
}

// scaled turns entries into rows of width bytes. Pieces with small gaps become one.
func (p pieces) scaled(height, width int) pieces {
	p.first, p.rows, p.step = p.first*height, p.rows*height, p.step*height
	if (p.step-p.rows)*width <= gap {
		p.rows, p.count = p.rows+(p.count-1)*p.step, 1
	}
	return p
}

// move reads rows of the source and writes those that are in w to their places.
func (n *swapRows) move(env Env, dst []byte, stride int, w, rows window) error {
	width := rows.cols() * n.item
	if n.height*width >= chunk {
		return n.runs(rows, w, func(run window, to int) error {
			return n.matrix.rect(env, dst[to*stride:], stride, run)
		})
	}
	step := min(rows.rows(), chunk/width)
	b := getBuffer(step * width)
	defer b.put()
	for ; rows.rows() > 0; rows.r0 += min(step, rows.rows()) {
		part := rows
		part.r1 = min(part.r1, part.r0+step)
		if err := n.matrix.rect(env, b.bytes, width, part); err != nil {
			return err
		}
		n.scatter(dst, stride, w, b.bytes, width, part)
	}
	return nil
}

// scatter copies rows of the source, which are width bytes apart, to their places.
func (n *swapRows) scatter(dst []byte, stride int, w window, src []byte, width int, rows window) {
	_ = n.runs(rows, w, func(run window, to int) error {
		src := src[(run.r0-rows.r0)*width:]
		for r := range run.rows() {
			copy(dst[(to+r)*stride:][:width], src[r*width:])
		}
		return nil
	})
}

// runs gives rows of the source entry by entry to a function, with their place in w. It leaves out
// those that are not in w.
func (n *swapRows) runs(rows, w window, do func(run window, to int) error) error {
	for end := rows.r1; rows.r0 < end; rows.r0 = rows.r1 {
		entry, at := rows.r0/n.height, rows.r0%n.height
		rows.r1 = min(rows.r0-at+n.height, end)
		to := n.to(entry)*n.height + at - w.r0
		if to < 0 || to+rows.rows() > w.rows() {
			continue // in a gap
		}
		if err := do(rows, to); err != nil {
			return err
		}
	}
	return nil
}

func (n *swapRows) transpose() (node, error) {
	if len(n.shape) == 2 {
		return newTranspose(n)
	}
	return n.over(n.of.transpose())
}

func (n *swapRows) slice(axis int, lo, hi int64) (node, error) {
	if axis > 0 {
		return n.over(n.of.slice(axis, lo, hi))
	}
	turn := int64(n.turn())
	if lo%turn != 0 || hi%turn != 0 {
		return newSlice(n, axis, lo, hi)
	}
	of, err := n.of.slice(axis, lo, hi)
	if err != nil {
		return nil, err
	}
	return newSwapRows(of, int((hi-lo)/turn), n.inner)
}

func (n *swapRows) over(of node, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	return newSwapRows(of, n.outer, n.inner)
}

func (n *swapRows) index(i int64) (node, error) { return n.of.index(int64(n.from(int(i)))) }

func (n *swapRows) String() string {
	return fmt.Sprintf("swap_rows(%s, %d, %d)", n.of, n.outer, n.inner)
}
