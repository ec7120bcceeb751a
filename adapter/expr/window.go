package expr

// window is the rows [r0, r1) and columns [c0, c1) of a node.
type window struct{ r0, r1, c0, c1 int }

func (w window) rows() int { return w.r1 - w.r0 }
func (w window) cols() int { return w.c1 - w.c0 }

func (w window) turned() window { return window{w.c0, w.c1, w.r0, w.r1} }

// cut splits off the rows in the first matrix, of matrices of height rows. It returns the number of
// the matrix, the window inside it, and the rest of w.
func (w window) cut(height int) (m int, head, rest window) {
	m = w.r0 / height
	end := min(w.r1, (m+1)*height)
	head = window{w.r0 - m*height, end - m*height, w.c0, w.c1}
	w.r0 = end
	return m, head, w
}

// matrixNode is a node that evaluates a window of one matrix.
type matrixNode interface {
	matrix(env Env, dst []byte, stride, m int, w window) error
}

// eachMatrix evaluates a window, whose rows span matrices of height rows, matrix by matrix.
func eachMatrix(n matrixNode, height int, env Env, dst []byte, stride int, w window) error {
	for {
		m, head, rest := w.cut(height)
		if err := n.matrix(env, dst, stride, m, head); err != nil || rest.rows() == 0 {
			return err
		}
		dst, w = dst[head.rows()*stride:], rest
	}
}

// readAt fills p with the bytes of n from off. It reads the rest of a row, then whole rows, then
// the beginning of a row. Elements that the range cuts go through a buffer.
func readAt(n node, env Env, p []byte, off int64) error {
	h := n.head()
	if err := h.inside(n, off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	env = orAlone(env)
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
func readElements(n node, env Env, p []byte, at int) error {
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

// readElement fills p with bytes of one element, beginning at its byte cut.
func readElement(n node, env Env, p []byte, at, cut int) error {
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
