package expr

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// cast converts between plain formats.
type cast struct {
	header
	of       node
	from, to fp8.Format
}

// Cast returns a node that converts n between F32, BF16 and F16, or from F64 to one of them. It
// rounds once, to nearest even. If n has dtype d already, it returns n. Other dtypes are an error.
func Cast(n Node, d safetensors.DType) (Node, error) {
	if n.DType() == d {
		return n, nil
	}
	of, err := ours("cast", n)
	if err != nil {
		return nil, err
	}
	if _, ok := plain(d); ok && n.DType() == safetensors.F64 {
		if of, err = narrowed(of, d); err != nil || d == safetensors.F32 {
			return of, err
		}
	}
	return newCast(of, d)
}

func newCast(of node, d safetensors.DType) (node, error) {
	from, ok := plain(of.DType())
	to, okTo := plain(d)
	if !ok || !okTo {
		return nil, fmt.Errorf("cast: %s from %s to %s: expected F32, BF16 or F16",
			of, of.DType(), d)
	}
	h, err := newHeader(d, of.Shape())
	if err != nil {
		return nil, fmt.Errorf("cast: %s: %w", of, err)
	}
	n := &cast{h, of, from, to}
	n.self = n
	return n, nil
}

func (n *cast) rect(env Env, dst []byte, stride int, w window) error {
	return inStrips(n.of, env, w, func(r int, src []byte, width, rows int) {
		dst := dst[r*stride:]
		for r := range rows {
			fp8.Convert(dst[r*stride:], n.to, src[r*width:], n.from, w.cols())
		}
		overflowed(env, n.to, dst, stride, rows, w.cols())
	})
}

// inStrips evaluates a window of a node, as many rows at a time as fit in a chunk. use gets the
// rows from row r of the window on. They are width bytes each.
func inStrips(of node, env Env, w window, use func(r int, src []byte, width, rows int)) error {
	width := w.cols() * of.head().item
	rows := min(w.rows(), max(1, chunk/max(width, 1)))
	b := getBuffer(rows * width)
	defer b.put()
	for r := 0; r < w.rows(); r += rows {
		n := min(rows, w.rows()-r)
		part := window{w.r0 + r, w.r0 + r + n, w.c0, w.c1}
		if err := of.rect(env, b.bytes, width, part); err != nil {
			return err
		}
		use(r, b.bytes[:n*width], width, n)
	}
	return nil
}

func (n *cast) needs(w window, d demand) bool { return n.of.needs(w, d) }

func (n *cast) transpose() (node, error) { return n.over(n.of.transpose()) }

func (n *cast) slice(axis int, lo, hi int64) (node, error) {
	return n.over(n.of.slice(axis, lo, hi))
}

func (n *cast) index(i int64) (node, error) { return n.over(n.of.index(i)) }

func (n *cast) over(of node, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	return newCast(of, n.dtype)
}

func (n *cast) String() string {
	return fmt.Sprintf("cast(%s, %s)", n.of, strings.ToLower(n.dtype.String()))
}
