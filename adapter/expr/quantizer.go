package expr

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// quantizer is shared by codes and scales. It computes the grid in the order in which the values
// are stored.
type quantizer struct {
	of     node
	stored node // of, or its transposition if the values are stored transposed
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
		return nil, fmt.Errorf("%s %v: expected a matrix of BF16, F16 or F32",
			of.DType(), of.Shape())
	}
	if min(o.Block[0], o.Block[1]) < 1 || max(o.Block[0], o.Block[1]) > maxBlock {
		return nil, fmt.Errorf("blocks of %d × %d: expected 1 to %d",
			o.Block[0], o.Block[1], maxBlock)
	}
	q := &quantizer{of: of, stored: of, format: format, ones: o.Scales == Ones,
		block: [2]int{int(o.Block[0]), int(o.Block[1])}}
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

// firstFile returns the first file that a recipe reads, or nil if the recipe is empty.
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

// orient finds the order in which the values are stored. The scale of a block is the same in either
// order.
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

// needs reports that a read needs the grid.
func (q *quantizer) needs(d demand) bool { return q.ones || d.unit == nil || d.unit(&q.unit) }

// blocks returns the window of the grid that a window of values needs.
func (q *quantizer) blocks(w window) window {
	r, c := q.block[0], q.block[1]
	return window{w.r0 / r, (w.r1-1)/r + 1, w.c0 / c, (w.c1-1)/c + 1}
}

// width returns the width of the grid as stored.
func (q *quantizer) width() int {
	if q.turned {
		return q.scales.rows
	}
	return q.scales.cols
}

// pick copies a window of the grid from the unit.
func (q *quantizer) pick(dst []float32, all []byte, w window) {
	if !q.turned {
		pickScales(dst, all, q.width(), w)
		return
	}
	for c := range w.cols() {
		row := all[4*((w.c0+c)*q.width()+w.r0):][:4*w.rows()]
		for r := range w.rows() {
			dst[r*w.cols()+c] = math.Float32frombits(binary.LittleEndian.Uint32(row[4*r:]))
		}
	}
}

// gather writes a window of the grid to dst. It uses the unit if there is a cache.
func (q *quantizer) gather(env Env, dst []float32, g window) error {
	e, err := env.Unit(&q.unit)
	if err != nil {
		return err
	}
	if e != nil {
		q.pick(dst, e.Bytes(), g)
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

// compute computes a window of the stored grid, a row of blocks at a time.
func (q *quantizer) compute(env Env, dst []float32, g window) error {
	for r := g.r0; r < g.r1; r++ {
		if err := q.computeRow(env, dst[:g.cols()], window{r, r + 1, g.c0, g.c1}); err != nil {
			return err
		}
		dst = dst[g.cols():]
	}
	return nil
}

func (q *quantizer) computeRow(env Env, dst []float32, g window) error {
	h := q.stored.head()
	m := fp8.Plain{Format: q.format, Block: q.block, Scales: dst, ScaleStride: len(dst)}
	if q.turned {
		m.Block[0], m.Block[1] = m.Block[1], m.Block[0]
	}
	r, c := m.Block[0], m.Block[1]
	w := window{g.r0 * r, min(g.r1*r, h.rows), g.c0 * c, min(g.c1*c, h.cols)}
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
func (q *quantizer) fillUnit(_ *Unit, env FillEnv, dst []byte) error {
	own := &inside{env}
	width := q.width()
	rows := q.scales.rows * q.scales.cols / width
	fns := make([]func() error, rows)
	for r := range fns {
		fns[r] = func() error {
			s := getFloats(width)
			defer s.put()
			if err := q.computeRow(own, s.values, window{r, r + 1, 0, width}); err != nil {
				return err
			}
			putFloats(dst[4*r*width:], s.values)
			return nil
		}
	}
	return env.Together(fns...)
}

func (q *quantizer) name(what string) string {
	mode := "amax"
	if q.ones {
		mode = "ones"
	}
	return fmt.Sprintf("%s(%s, %d×%d, %s)", what, q.of, q.block[0], q.block[1], mode)
}
