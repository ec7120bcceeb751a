package expr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/fp8"
)

// strips is the smallest number of strips of a fill.
const strips = 8

// Sizes in bytes. Only tests change them.
var (
	// chunk is the most bytes per read. A chunk stays in the core's cache until it is decoded.
	chunk = 512 << 10

	// gap is the largest gap between rows that is read along with them. Beyond it, separate reads
	// are faster.
	gap = 8 << 10

	// strip is the most bytes per read of a fill. With aligned ends it is a large page.
	strip = 2<<20 - 2*DirectAlign
)

// region is a strided part of a stored tensor: a batch of matrices, possibly seen transposed.
// Strides are bytes of the file.
type region struct {
	src         *Source
	offset      int64 // of the first element in the file
	item        int   // bytes of an element
	batch       int
	rows, cols  int // as stored
	batchStride int64
	rowStride   int64
	transposed  bool
	part        []span   // by axis of the source; nil: all of it
	turned      unitList // one for each matrix, if transposed
	skip        int      // rows of a unit before those of the region
}

// span is a part of an axis. If dropped, it is one entry and the axis is gone.
type span struct {
	lo, hi  int64
	dropped bool
}

// newRegion returns the region of a whole tensor with header h.
func newRegion(src *Source, h *header) region {
	g := region{src: src, offset: src.Offset, item: h.item, batch: 1, rows: 1, cols: h.cols}
	if n := len(h.shape); n > 1 && h.size > 0 {
		g.rows = int(h.shape[n-2])
		g.batch = h.rows / g.rows
	}
	g.rowStride = int64(g.cols) * int64(g.item)
	g.batchStride = int64(g.rows) * g.rowStride
	return g
}

// height returns the rows of each matrix as seen.
func (g *region) height() int {
	if g.transposed {
		return g.cols
	}
	return g.rows
}

// transpose returns the transposed region.
func (g region) transpose() region {
	g.transposed = !g.transposed
	return g
}

// whole reports whether the elements are contiguous in the file, in the order in which they are
// seen.
func (g *region) whole() bool {
	width := int64(g.cols) * int64(g.item)
	return !g.transposed && (g.rows == 1 || g.rowStride == width) &&
		(g.batch == 1 || g.batchStride == int64(g.rows)*width)
}

// narrow keeps the part s of an axis. The tensor has at most three axes, of which n are seen.
func (g region) narrow(n, axis int, s span) region {
	fromEnd := n - axis
	if g.transposed && fromEnd <= 2 {
		fromEnd = 3 - fromEnd
	}
	switch fromEnd {
	case 1:
		g.offset += s.lo * int64(g.item)
		g.cols = int(s.hi - s.lo)
	case 2:
		g.offset += s.lo * g.rowStride
		g.rows = int(s.hi - s.lo)
	case 3:
		g.offset += s.lo * g.batchStride
		g.batch = int(s.hi - s.lo)
	}
	part := make([]span, len(g.src.Shape))
	for i, size := range g.src.Shape {
		part[i].hi = size
	}
	copy(part, g.part)
	old := &part[len(part)-fromEnd]
	*old = span{old.lo + s.lo, old.lo + s.hi, s.dropped}
	g.part = part
	return g
}

// seal makes the units. It is called when the region has its final form.
func (g *region) seal() {
	g.turned, g.skip = unitList{}, 0
	if !g.transposed || g.rows == 0 || g.cols == 0 {
		return
	}
	of := g.widened()
	g.skip = int(g.offset-of.offset) / g.item
	g.turned = newUnitList(g.batch, of)
}

// widened returns the region that the units hold. It has the full stored rows if the gaps would be
// read anyway and a quarter of each row is seen. So the parts of a merged tensor share their units.
func (g *region) widened() *region {
	full, width := int(g.rowStride), g.cols*g.item
	if full == width || full-width > gap || full > 4*width {
		return g
	}
	of := *g
	last := len(g.part) - 1
	of.offset -= g.part[last].lo * int64(g.item)
	of.cols = full / g.item
	of.part = slices.Clone(g.part)
	of.part[last] = span{hi: g.src.Shape[last]}
	return &of
}

// unitKey returns the key of the transposed matrix m.
func (g *region) unitKey(m int) UnitKey {
	return UnitKey{
		File: g.src.File, Offset: g.offset + int64(m)*g.batchStride, Kind: Transposed,
		Rows: int64(g.rows), Cols: int64(g.cols), Stride: g.rowStride,
	}
}

// at returns the offset of an element in the file.
func (g *region) at(m, r, c int) int64 {
	return g.offset + int64(m)*g.batchStride + int64(r)*g.rowStride + int64(c)*int64(g.item)
}

// read writes a window of matrix m, as stored, to dst.
func (g *region) read(env Input, dst []byte, stride, m int, w window) error {
	width := w.cols() * g.item
	if w.rows() == 1 || width == stride && int64(width) == g.rowStride {
		return read(env, g.src, dst[:w.rows()*width], g.at(m, w.r0, w.c0))
	}
	if g.rowStride-int64(width) > int64(gap) || width >= chunk {
		for r := w.r0; r < w.r1; r++ {
			if err := read(env, g.src, dst[(r-w.r0)*stride:][:width],
				g.at(m, r, w.c0)); err != nil {
				return err
			}
		}
		return nil
	}
	return g.readSpans(env, dst, stride, m, w)
}

// readSpans reads rows together with the gaps between them and copies only the rows.
func (g *region) readSpans(env Input, dst []byte, stride, m int, w window) error {
	width, step := w.cols()*g.item, int(g.rowStride)
	rows := min(w.rows(), max(1, chunk/step))
	b := getBuffer((rows-1)*step + width)
	defer b.put()
	for w.r0 < w.r1 {
		n := min(rows, w.rows())
		if err := read(env, g.src, b.bytes[:(n-1)*step+width], g.at(m, w.r0, w.c0)); err != nil {
			return err
		}
		for r := range n {
			copy(dst[r*stride:][:width], b.bytes[r*step:])
		}
		if w.r0 += n; w.r0 < w.r1 {
			dst = dst[n*stride:]
		}
	}
	return nil
}

// lease is a window of elements in memory, in the order in which the region is seen.
type lease struct {
	bytes  []byte
	stride int
	rows   int // may be fewer than requested
	entry  Entry
	buf    *buffer
}

func (l *lease) release() {
	if l.entry != nil {
		l.entry.Release()
	}
	l.buf.put()
}

// borrow returns the first rows of a window of matrix m, as seen.
func (g *region) borrow(env Env, m int, w window) (lease, error) {
	if g.transposed {
		e, err := env.Unit(g.turned.at(m))
		if err != nil {
			return lease{}, err
		}
		if e != nil {
			return g.borrowUnit(e, w), nil
		}
		return g.borrowTurned(env, m, w)
	}
	width := w.cols() * g.item
	if int64(width) == g.rowStride || w.rows() == 1 {
		p, e, skip := lent(env, g.src.File, g.at(m, w.r0, w.c0), w.rows()*width, width)
		if e != nil {
			return lease{bytes: p, stride: width, rows: len(p) / width, entry: e}, nil
		}
		w.r1 = min(w.r1, w.r0+max(1, (skip+width-1)/width))
	}
	w.r1 = min(w.r1, w.r0+max(1, chunk/width))
	return g.copied(env, m, w)
}

// borrowUnit borrows from the transposed matrix.
func (g *region) borrowUnit(e Entry, w window) lease {
	stride := g.rows * g.item
	bytes := e.Bytes()[(g.skip+w.r0)*stride+w.c0*g.item:]
	return lease{bytes: bytes, stride: stride, rows: w.rows(), entry: e}
}

// borrowTurned reads the stored columns that the window sees as rows, and transposes them.
func (g *region) borrowTurned(env Env, m int, w window) (lease, error) {
	stride := w.cols() * g.item
	w.r1 = min(w.r1, w.r0+max(1, 16*chunk/stride)) // a larger piece needs fewer reads
	stored := w.turned()
	width := stored.cols() * g.item
	b := getBuffer(stored.rows() * width)
	defer b.put()
	if err := g.read(env, b.bytes, width, m, stored); err != nil {
		return lease{}, err
	}
	t := getBuffer(w.rows() * stride)
	fp8.Transpose(t.bytes, stride, b.bytes, width, stored.rows(), stored.cols(), g.item)
	return lease{bytes: t.bytes, stride: stride, rows: w.rows(), buf: t}, nil
}

func (g *region) unitSize(*Unit) int64 { return int64(g.rows) * int64(g.cols) * int64(g.item) }

// unitSpans reports the rows of a unit, with the gaps between them if these are read along.
func (g *region) unitSpans(u *Unit, yield func(f File, off, n int64) bool) bool {
	width := int64(g.cols) * int64(g.item)
	if g.rowStride-width <= int64(gap) {
		return yield(g.src.File, u.key.Offset, int64(g.rows-1)*g.rowStride+width)
	}
	for r := range int64(g.rows) {
		if !yield(g.src.File, u.key.Offset+r*g.rowStride, width) {
			return false
		}
	}
	return true
}

func (g *region) unitName(u *Unit) string {
	m := int((u.key.Offset - g.offset) / max(g.batchStride, 1))
	if g.batch == 1 {
		return "transposed " + g.name()
	}
	return fmt.Sprintf("transposed matrix %d of %s", m, g.name())
}

// fillUnit transposes a matrix in strips of rows.
func (g *region) fillUnit(u *Unit, env FillEnv, dst []byte) error {
	m := int((u.key.Offset - g.offset) / max(g.batchStride, 1))
	rows := g.stripRows()
	fns := make([]func() error, 0, g.rows/rows+1)
	for r := 0; r < g.rows; r += rows {
		w := window{r, min(g.rows, r+rows), 0, g.cols}
		fns = append(fns, func() error { return g.fillStrip(env, dst, m, w) })
	}
	return env.Together(fns...)
}

// stripRows returns the rows of a strip. It prefers whole cache lines of the result.
func (g *region) stripRows() int {
	line := max(1, 64/g.item)
	width := g.cols * g.item
	rows := min(g.rows/strips, strip/width)
	return max(rows/line*line, min(line, strip/width), 1)
}

func (g *region) fillStrip(env FillEnv, dst []byte, m int, w window) error {
	width := g.cols * g.item
	l, err := g.take(env, m, w)
	if err != nil {
		return err
	}
	defer l.release()
	fp8.Transpose(dst[w.r0*g.item:], g.rows*g.item, l.bytes, width, w.rows(), g.cols, g.item)
	return nil
}

// take returns a whole window of matrix m, as stored. It lends the bytes if possible.
func (g *region) take(env Input, m int, w window) (lease, error) {
	width := w.cols() * g.item
	if n := w.rows() * width; int64(width) == g.rowStride {
		if p, e, _ := lent(env, g.src.File, g.at(m, w.r0, w.c0), n, n); e != nil {
			return lease{bytes: p, stride: width, rows: w.rows(), entry: e}, nil
		}
	}
	return g.copied(env, m, w)
}

// copied reads a whole window of matrix m, as stored.
func (g *region) copied(env Input, m int, w window) (lease, error) {
	width := w.cols() * g.item
	b := getBuffer(w.rows() * width)
	l := lease{bytes: b.bytes, stride: width, rows: w.rows(), buf: b}
	if err := g.read(env, b.bytes, width, m, w); err != nil {
		l.release()
		return lease{}, err
	}
	return l, nil
}

// needs reports the needs of a window as seen, whose rows span all matrices.
func (g *region) needs(w window, d demand) bool {
	if g.transposed {
		return d.unit == nil || g.needsUnits(w, d)
	}
	return d.span == nil || g.needsSpans(w, d)
}

func (g *region) needsUnits(w window, d demand) bool {
	for m := w.r0 / g.cols; m <= (w.r1-1)/g.cols; m++ {
		if !d.unit(g.turned.at(m)) {
			return false
		}
	}
	return true
}

func (g *region) needsSpans(w window, d demand) bool {
	for w.rows() > 0 {
		m, head, rest := w.cut(g.rows)
		lo := g.at(m, head.r0, head.c0)
		if !d.span(g.src.File, lo, g.at(m, head.r1-1, head.c1)-lo) {
			return false
		}
		w = rest
	}
	return true
}

// name returns the key and the part of the tensor.
func (g *region) name() string {
	if g.part == nil {
		return g.src.Key
	}
	var b strings.Builder
	b.WriteString(g.src.Key)
	for i, s := range g.part {
		b.WriteString([]string{"[", ", "}[min(i, 1)])
		switch {
		case s.dropped:
			fmt.Fprint(&b, s.lo)
		case s.lo == 0 && s.hi == g.src.Shape[i]:
			b.WriteString(":")
		default:
			fmt.Fprintf(&b, "%d:%d", s.lo, s.hi)
		}
	}
	return b.String() + "]"
}
