package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// ScaleMode says how scales are chosen.
type ScaleMode uint8

// The ways to choose scales.
const (
	// Amax is the largest magnitude of a block that is finite, by 448, the largest code,
	// but at least 2^-126.
	Amax ScaleMode = iota
	// Ones are scales of 1: codes are the values themselves, rounded, and saturated at ±448.
	Ones
)

// QuantizeOptions say how values become codes and scales. The zero value is that of DeepSeek-V3's checkpoints.
type QuantizeOptions struct {
	Block  [2]int64 // rows, columns of one scale; {0, 0}: 128 × 128
	Scales ScaleMode
}

const maxBlock = 1024

// Quantize makes FP8 codes (F8_E4M3) of a matrix of plain values, and the grid of their scales
// (F32): a code times its scale is the value, nearly. Any part of either may be read by itself. The grid is a
// unit, [Computed] from all of n and shared by both nodes: without a cache the blocks that a read needs are computed
// each time. Values that saturate are counted in [Env.Counters]: infinities, and with [Ones] what is beyond ±448.
func Quantize(n Node, o QuantizeOptions) (codes, scales Node, err error) {
	of, err := ours("quantize", n)
	if err != nil {
		return nil, nil, err
	}
	q, err := newQuantizer(of, o)
	if err != nil {
		return nil, nil, fmt.Errorf("quantize: %s: %w", n, err)
	}
	return &quantize{q.codes, q}, &amax{q.scales, q}, nil
}

// quantizer is what codes and scales share. The grid is computed in the order in which the values are stored.
type quantizer struct {
	of     node
	stored node // of, or its transposition if that is how it is stored
	turned bool
	format fp8.Format
	ones   bool
	block  [2]int
	codes  header
	scales header
	unit   Unit
}

func newQuantizer(of node, o QuantizeOptions) (*quantizer, error) {
	if o.Block == [2]int64{} {
		o.Block = [2]int64{fp8.BlockSize, fp8.BlockSize}
	}
	format, ok := plain(of.DType())
	if !ok || len(of.Shape()) != 2 {
		return nil, fmt.Errorf("%s %v: expected a matrix of BF16, F16 or F32", of.DType(), of.Shape())
	}
	if min(o.Block[0], o.Block[1]) < 1 || max(o.Block[0], o.Block[1]) > maxBlock {
		return nil, fmt.Errorf("blocks of %d × %d: expected 1 to %d", o.Block[0], o.Block[1], maxBlock)
	}
	q := &quantizer{of: of, stored: of, format: format, ones: o.Scales == Ones, block: [2]int{int(o.Block[0]), int(o.Block[1])}}
	var err error
	if q.codes, err = newHeader(safetensors.F8E4M3, of.Shape()); err != nil {
		return nil, err
	}
	grid := make([]int64, 2)
	for i, size := range of.Shape() {
		grid[i] = (size + o.Block[i] - 1) / o.Block[i]
	}
	if q.scales, err = newHeader(safetensors.F32, grid); err != nil {
		return nil, err
	}
	q.unit = Unit{UnitKey{File: firstFile(of), Kind: Computed, Recipe: of}, q}
	return q, q.orient()
}

// firstFile is the first file that a recipe reads, nil if it is empty.
func firstFile(n node) (file File) {
	n.Units(0, n.Size(), func(u *Unit) bool {
		file = u.key.File
		return false
	})
	if file == nil {
		n.Ranges(0, n.Size(), func(f File, _, _ int64) bool {
			file = f
			return false
		})
	}
	return file
}

// orient finds out how the values are stored: the scale of a block does not depend on it.
func (q *quantizer) orient() error {
	if !needsUnits(q.of) {
		return nil
	}
	turned, err := q.of.transpose()
	if err == nil && !needsUnits(turned) {
		q.stored, q.turned = turned, true
	}
	return err
}

func needsUnits(n node) bool {
	return n.Size() > 0 && !n.Units(0, n.Size(), func(*Unit) bool { return false })
}

// blocks is the window of the grid that a window of values needs.
func (q *quantizer) blocks(w window) window {
	return window{w.r0 / q.block[0], (w.r1-1)/q.block[0] + 1, w.c0 / q.block[1], (w.c1-1)/q.block[1] + 1}
}

// width of the grid as it is stored.
func (q *quantizer) width() int {
	if q.turned {
		return q.scales.rows
	}
	return q.scales.cols
}

// gather writes a window of the grid to dst, from the unit if there is a cache.
func (q *quantizer) gather(env *Env, dst []float32, g window) error {
	if c := env.cache(); c != nil {
		e, err := c.Get(env.context(), &q.unit)
		if err != nil {
			return err
		}
		pickScales(dst, e.Bytes(), q.width(), g, q.turned)
		e.Release()
		return nil
	}
	if !q.turned {
		return q.compute(env, dst, g)
	}
	s := getFloats(len(dst))
	defer s.put()
	if err := q.compute(env, s.values, g.turned()); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = s.values[i%g.cols()*g.rows()+i/g.cols()]
	}
	return nil
}

// compute finds the scales of a window of the stored grid, a row of blocks at a time.
func (q *quantizer) compute(env *Env, dst []float32, g window) error {
	for r := g.r0; r < g.r1; r++ {
		if err := q.computeRow(env, dst[:g.cols()], window{r, r + 1, g.c0, g.c1}); err != nil {
			return err
		}
		dst = dst[g.cols():]
	}
	return nil
}

func (q *quantizer) computeRow(env *Env, dst []float32, g window) error {
	h := q.stored.head()
	m := fp8.Plain{Format: q.format, Block: q.block, Scales: dst, ScaleStride: len(dst)}
	if q.turned {
		m.Block[0], m.Block[1] = m.Block[1], m.Block[0]
	}
	w := window{g.r0 * m.Block[0], min(g.r1*m.Block[0], h.rows), g.c0 * m.Block[1], min(g.c1*m.Block[1], h.cols)}
	m.Rows, m.Cols, m.Stride = w.rows(), w.cols(), w.cols()*h.item
	b := getBuffer(m.Rows * m.Stride)
	defer b.put()
	if err := q.stored.rect(env, b.bytes, m.Stride, w); err != nil {
		return err
	}
	m.Data = b.bytes
	fp8.BlockScales(&m)
	return nil
}

func (q *quantizer) unitSize(*Unit) int64 { return q.scales.size }

func (q *quantizer) unitName(*Unit) string { return "computed scales of " + q.of.String() }

// fillUnit computes the whole grid, a row of blocks at a time.
func (q *quantizer) fillUnit(_ *Unit, env *Env, dst []byte) error {
	own := Env{Context: env.context()}
	if env != nil {
		own.ReadAt = env.ReadAt
	}
	width := q.width()
	rows := q.scales.rows * q.scales.cols / width
	fns := make([]func() error, rows)
	for r := range fns {
		fns[r] = func() error {
			s := getFloats(width)
			defer s.put()
			if err := q.computeRow(&own, s.values, window{r, r + 1, 0, width}); err != nil {
				return err
			}
			putFloats(dst[4*r*width:], s.values)
			return nil
		}
	}
	return env.together(fns...)
}

// quantize is the codes.
type quantize struct {
	header
	by *quantizer
}

// ReadAt fills p.
func (n *quantize) ReadAt(env *Env, p []byte, off int64) error { return readAt(n, env, p, off) }

var one = []float32{1}

func (n *quantize) rect(env *Env, dst []byte, stride int, w window) error {
	q := n.by
	m := fp8.Plain{Format: q.format, Scales: one}
	if !q.ones {
		g := q.blocks(w)
		s := getFloats(g.rows() * g.cols())
		defer s.put()
		if err := q.gather(env, s.values, g); err != nil {
			return err
		}
		m.Block, m.Scales, m.ScaleStride = q.block, s.values, g.cols()
		m.Row, m.Col = w.r0%q.block[0], w.c0%q.block[1]
	}
	m.Cols, m.Stride = w.cols(), w.cols()*q.of.head().item
	return n.encode(env, dst, stride, w, &m)
}

// encode reads the values of w and quantizes them, some rows at a time.
func (n *quantize) encode(env *Env, dst []byte, stride int, w window, m *fp8.Plain) error {
	rows := min(w.rows(), max(1, chunk/m.Stride))
	b := getBuffer(rows * m.Stride)
	defer b.put()
	m.Data = b.bytes
	for {
		part := window{w.r0, min(w.r1, w.r0+rows), w.c0, w.c1}
		if err := n.by.of.rect(env, b.bytes, m.Stride, part); err != nil {
			return err
		}
		m.Rows = part.rows()
		env.saturated(fp8.Quantize(dst, stride, m))
		if w.r0 = part.r1; w.rows() == 0 {
			return nil
		}
		m.Row += m.Rows
		dst = dst[m.Rows*stride:]
	}
}

// Units of a range.
func (n *quantize) Units(off, count int64, yield func(*Unit) bool) bool {
	return unitsOf(n, off, count, yield)
}

// Ranges of a range.
func (n *quantize) Ranges(off, count int64, yield func(f File, off, n int64) bool) bool {
	return rangesOf(n, off, count, yield)
}

func (n *quantize) units(w window, yield func(*Unit) bool) bool {
	return (n.by.ones || yield(&n.by.unit)) && n.by.of.units(w, yield)
}

func (n *quantize) ranges(w window, yield func(f File, off, n int64) bool) bool {
	return n.by.of.ranges(w, yield)
}

func (n *quantize) transpose() (node, error) { return newTranspose(n) }

func (n *quantize) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *quantize) index(i int64) (node, error) { return indexed(n, i) }

func (n *quantize) String() string { return n.by.name("quantize") }

func (q *quantizer) name(what string) string {
	mode := "amax"
	if q.ones {
		mode = "ones"
	}
	return fmt.Sprintf("%s(%s, %d×%d, %s)", what, q.of, q.block[0], q.block[1], mode)
}

// amax is the scales.
type amax struct {
	header
	by *quantizer
}

// ReadAt fills p.
func (n *amax) ReadAt(env *Env, p []byte, off int64) error { return readAt(n, env, p, off) }

func (n *amax) rect(env *Env, dst []byte, stride int, w window) error {
	s := getFloats(w.rows() * w.cols())
	defer s.put()
	if n.by.ones {
		for i := range s.values {
			s.values[i] = 1
		}
	} else if err := n.by.gather(env, s.values, w); err != nil {
		return err
	}
	for r := range w.rows() {
		putFloats(dst[r*stride:], s.values[r*w.cols():][:w.cols()])
	}
	return nil
}

// Units of a range.
func (n *amax) Units(off, count int64, yield func(*Unit) bool) bool {
	return unitsOf(n, off, count, yield)
}

// Ranges of a range.
func (n *amax) Ranges(off, count int64, yield func(f File, off, n int64) bool) bool {
	return rangesOf(n, off, count, yield)
}

func (n *amax) units(_ window, yield func(*Unit) bool) bool { return n.by.ones || yield(&n.by.unit) }

func (n *amax) ranges(window, func(f File, off, n int64) bool) bool { return true }

func (n *amax) transpose() (node, error) { return newTranspose(n) }

func (n *amax) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *amax) index(i int64) (node, error) { return indexed(n, i) }

func (n *amax) String() string { return n.by.name("scales") }
