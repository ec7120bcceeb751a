package expr

import "fmt"

// load shows a stored tensor or a part of it, possibly transposed.
type load struct {
	header
	region region
}

// Load returns a node with the bytes of a stored tensor, unchanged. A tensor beyond the end of its
// file is an error.
func Load(src *Source) (Node, error) {
	h, err := checkSource(src)
	if err != nil {
		return nil, err
	}
	return newLoad(h, newRegion(src, &h)), nil
}

// checkSource refuses tensors that are not inside their file.
func checkSource(src *Source) (header, error) {
	h, err := newHeader(src.DType, src.Shape)
	if err != nil {
		return h, fmt.Errorf("%s: %w", src.Key, err)
	}
	if size := src.File.Size(); src.Offset < 0 || src.Offset > size-h.size {
		return h, fmt.Errorf("%s: %s: bytes [%d, %d) are not inside the file's %d",
			src.File.Name(), src.Key, src.Offset, src.Offset+h.size, size)
	}
	return h, nil
}

func newLoad(h header, g region) *load {
	n := &load{h, g}
	n.self = n
	n.region.seal()
	return n
}

// ReadAt fills p.
func (n *load) ReadAt(env Env, p []byte, off int64) error {
	if !n.region.whole() {
		return readAt(n, env, p, off)
	}
	if err := n.inside(n, off, int64(len(p))); err != nil {
		return err
	}
	return read(orAlone(env), n.region.src, p, n.region.offset+off)
}

func (n *load) rect(env Env, dst []byte, stride int, w window) error {
	return eachMatrix(n, n.region.height(), env, dst, stride, w)
}

func (n *load) matrix(env Env, dst []byte, stride, m int, w window) error {
	if !n.region.transposed {
		return n.region.read(env, dst, stride, m, w)
	}
	for {
		l, err := n.region.borrow(env, m, w)
		if err != nil {
			return err
		}
		for r := range l.rows {
			copy(dst[r*stride:][:w.cols()*n.item], l.bytes[r*l.stride:])
		}
		l.release()
		if w.r0 += l.rows; w.rows() == 0 {
			return nil
		}
		dst = dst[l.rows*stride:]
	}
}

func (n *load) needs(w window, d demand) bool { return n.region.needs(w, d) }

func (n *load) needsRange(off, count int64, d demand) bool {
	if !n.region.whole() {
		return n.header.needsRange(off, count, d)
	}
	return d.span == nil || d.span(n.region.src.File, n.region.offset+off, count)
}

func (n *load) transpose() (node, error) {
	h, err := newHeader(n.dtype, swapped(n.shape))
	if err != nil {
		return nil, err
	}
	return newLoad(h, n.region.transpose()), nil
}

func (n *load) slice(axis int, lo, hi int64) (node, error) {
	if tooDeep(n.region.src, len(n.shape)-axis) {
		return newSlice(n, axis, lo, hi)
	}
	h, err := newHeader(n.dtype, resized(n.shape, axis, hi-lo))
	if err != nil {
		return nil, err
	}
	return newLoad(h, n.region.narrow(len(n.shape), axis, span{lo: lo, hi: hi})), nil
}

func (n *load) index(i int64) (node, error) {
	if tooDeep(n.region.src, len(n.shape)) {
		return indexed(n, i)
	}
	h, err := newHeader(n.dtype, n.shape[1:])
	if err != nil {
		return nil, err
	}
	return newLoad(h, n.region.narrow(len(n.shape), 0, span{i, i + 1, true})), nil
}

// tooDeep reports whether an axis is one of several before the matrices. A region has no stride for
// such an axis.
func tooDeep(src *Source, fromEnd int) bool { return fromEnd > 2 && len(src.Shape) > 3 }

func (n *load) String() string {
	if n.region.transposed {
		return "transpose(" + n.region.name() + ")"
	}
	return n.region.name()
}
