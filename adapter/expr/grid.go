package expr

import (
	"fmt"
	"math"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// grid holds the scales of a batch of matrices, in the orientation of their node.
type grid struct {
	src         *Source
	offset      int64 // of the first scale in the file
	batch       int
	batchStride int64 // bytes; 0: one grid for all
	rows, cols  int   // as stored
	transposed  bool
	block       [2]int  // rows and columns under one scale, in the node's orientation
	origin      [2]int  // position of the node in the whole matrix, in the node's orientation
	of          numbers // reads the grid of a matrix
	groups      *groups // the group of each row or column; nil: groups follow each other
	units       unitList
}

// newGrid checks the scales of w. If scale is nil, every scale is one.
func newGrid(w, scale *Source, block [2]int64) (grid, error) {
	if scale == nil {
		return grid{batch: 1}, nil
	}
	h, err := checkSource(scale)
	if err != nil {
		return grid{}, err
	}
	if _, ok := numberFormats[scale.DType]; !ok || scale.DType == safetensors.F8E4M3 {
		return grid{}, fmt.Errorf("%s: scales of dtype %s: "+
			"expected F32, BF16, F16, F8_E8M0 or U8 (exponents)", scale.Key, scale.DType)
	}
	if err := checkBlock(scale, block); err != nil {
		return grid{}, err
	}
	shape, err := gridShape(w, scale, block)
	if err != nil {
		return grid{}, err
	}
	g := grid{src: scale, offset: scale.Offset, batch: 1}
	g.block = [2]int{int(block[0]), int(block[1])}
	g.rows, g.cols = int(shape[1]), int(shape[2])
	if len(w.Shape) == 3 {
		g.batch = int(w.Shape[0])
	}
	g.of = &asStored{scale, g.rows * g.cols}
	if shape[0] > 1 {
		g.batchStride = shape[1] * shape[2] * int64(h.item)
	}
	return g, nil
}

// checkBlock refuses sizes of blocks that are negative or more than an int holds everywhere.
func checkBlock(scale *Source, block [2]int64) error {
	if min(block[0], block[1]) < 0 || max(block[0], block[1]) > math.MaxInt32 {
		return fmt.Errorf("%s: blocks of %d × %d: expected 0 to %d",
			scale.Key, block[0], block[1], math.MaxInt32)
	}
	return nil
}

// gridShape returns the stored grid as matrices, rows and columns. It refuses a grid with too few
// scales.
func gridShape(w, scale *Source, block [2]int64) ([3]int64, error) {
	need := neededGrid(w, block)
	rank := len(w.Shape)
	got := [3]int64{1, 1, 1}
	switch n := len(scale.Shape); {
	case n == rank:
		copy(got[3-n:], scale.Shape)
	case n == 0 || n == 1 && scale.Shape[0] == 1:
	case n < rank:
		rest := scale.Shape
		for i := 3 - rank; i < 3 && len(rest) > 0; i++ {
			if need[i] > 1 || 3-i == len(rest) {
				got[i], rest = rest[0], rest[1:]
			}
		}
	default:
		got[0] = -1
	}
	forAll := rank == 3 && got == [3]int64{1, 1, 1}
	if got[0] != need[0] && !forAll || got[1] < need[1] || got[2] < need[2] {
		return got, fmt.Errorf("%s: grid of shape %v: %s of shape %v in blocks of %s × %s needs %v",
			scale.Key, scale.Shape, w.Key, w.Shape,
			blockName(int(block[0])), blockName(int(block[1])), need[3-rank:])
	}
	return got, nil
}

// neededGrid returns the shape of the grid of w, as matrices, rows and columns.
func neededGrid(w *Source, block [2]int64) [3]int64 {
	need := [3]int64{1, 1, 1}
	n := len(w.Shape)
	if n == 3 {
		need[0] = w.Shape[0]
	}
	for i, b := range block {
		size := w.Shape[n-2+i]
		if b == 0 {
			b = max(size, 1)
		}
		need[1+i] = size/b + min(size%b, 1)
	}
	if slices.Contains(w.Shape, 0) {
		need[1], need[2] = 0, 0
	}
	return need
}

func (g grid) transpose() grid {
	g.transposed = !g.transposed
	g.block[0], g.block[1] = g.block[1], g.block[0]
	g.origin[0], g.origin[1] = g.origin[1], g.origin[0]
	if g.groups != nil {
		g.groups = g.groups.transpose()
	}
	return g
}

// narrow keeps [lo, hi) of an axis, which is counted from the end: 1 is the last axis.
func (g grid) narrow(fromEnd int, lo, hi int64) grid {
	if fromEnd == 3 {
		g.offset += lo * g.batchStride
		g.batch = int(hi - lo)
	} else {
		g.origin[2-fromEnd] += int(lo)
	}
	return g
}

// seal makes the units.
func (g *grid) seal() {
	if g.src == nil {
		return
	}
	g.units = newUnitList(g.grids(), g)
}

// grids returns the number of grids.
func (g *grid) grids() int {
	if g.batchStride > 0 {
		return g.batch
	}
	return 1
}

// unitKey returns the key of the unit of matrix m. A transposed grid has a unit of its own, because
// a read of a few rows would gather them from all its lines.
func (g *grid) unitKey(m int) UnitKey {
	k := UnitKey{
		File: g.src.File, Offset: g.offset + int64(m)*g.batchStride, Kind: Grid,
		Rows: int64(g.rows), Cols: int64(g.cols),
	}
	if g.transposed {
		k.Stride = 4 * k.Rows
	}
	return k
}

// width returns the scales in a row of a unit.
func (g *grid) width() int {
	if g.transposed {
		return g.rows
	}
	return g.cols
}

// scales is the part of a grid that a window needs, and the position of the window in it.
type scales struct {
	floats   *floats
	stride   int
	row, col int
}

func (s *scales) release() { s.floats.put() }

// first returns the block of a position, and the position relative to the start of that block.
func first(i, block int) (b, rest int) {
	if block == 0 {
		return 0, i
	}
	return i / block, i % block
}

// borrow returns the scales of a window of matrix m.
func (g *grid) borrow(env Env, m int, w window) (scales, error) {
	if g.groups != nil {
		return g.borrowGroups(env, m, w)
	}
	need := g.window(w)
	_, row := first(g.origin[0]+w.r0, g.block[0])
	_, col := first(g.origin[1]+w.c0, g.block[1])
	s := scales{getFloats(need.rows() * need.cols()), need.cols(), row, col}
	if g.src == nil {
		s.floats.values[0] = 1
		return s, nil
	}
	if err := g.gather(env, m, s.floats.values, need); err != nil {
		s.release()
		return scales{}, err
	}
	return s, nil
}

// window returns the blocks that a window needs.
func (g *grid) window(w window) window {
	r0, _ := first(g.origin[0]+w.r0, g.block[0])
	c0, _ := first(g.origin[1]+w.c0, g.block[1])
	r1, _ := first(g.origin[0]+w.r1-1, g.block[0])
	c1, _ := first(g.origin[1]+w.c1-1, g.block[1])
	return window{r0, r1 + 1, c0, c1 + 1}
}

// gather copies a window of the grid, in the node's orientation.
func (g *grid) gather(env Env, m int, dst []float32, w window) error {
	if g.inRows() {
		return g.gatherRows(env, m, dst, w)
	}
	u := g.units.at(min(m, g.grids()-1))
	e, err := env.Unit(u)
	if err != nil {
		return err
	}
	if e != nil {
		pickScales(dst, e.Bytes(), g.width(), w)
		e.Release()
		return nil
	}
	b := getBuffer(int(g.unitSize(u)))
	defer b.put()
	if err := g.decode(env, u, b.bytes); err != nil {
		return err
	}
	pickScales(dst, b.bytes, g.width(), w)
	return nil
}

// smallGrid is the most bytes of a grid that is always kept as a whole. Only tests change it.
var smallGrid int64 = 64 << 10

// inRows reports whether a read takes only the rows of scales that it needs, without a unit. Then
// the scales of a few rows of codes cost no more than the codes.
func (g *grid) inRows() bool {
	return g.of != nil && !g.transposed && g.groups == nil &&
		(g.block[0] == 1 || g.rows == 1) && g.unitSize(nil) > smallGrid
}

// gatherRows reads a window of the grid from the source.
func (g *grid) gatherRows(in Input, m int, dst []float32, w window) error {
	from, n := g.rowsOf(w)
	m = g.matrix(g.offset + int64(m)*g.batchStride)
	if w.rows() == 1 || w.cols() == g.cols {
		return g.of.read(in, dst[:n], m, from)
	}
	all := getFloats(n)
	defer all.put()
	if err := g.of.read(in, all.values, m, from); err != nil {
		return err
	}
	for r := range w.rows() {
		copy(dst[r*w.cols():][:w.cols()], all.values[r*g.cols+w.c0:])
	}
	return nil
}

// rowsOf returns the scales to read for a window: the first one and their number.
func (g *grid) rowsOf(w window) (from, n int) {
	if w.rows() == 1 {
		return w.r0*g.cols + w.c0, w.cols()
	}
	return w.r0 * g.cols, w.rows() * g.cols
}

// matrix returns the matrix of the whole stack whose grid is at an offset.
func (g *grid) matrix(offset int64) int {
	return int((offset - g.src.Offset) / max(g.batchStride, 1))
}

// needs reports what a read of a window of matrix m takes from the source without a unit.
func (g *grid) needs(m int, w window, d demand) bool {
	if g == nil || d.span == nil || !g.inRows() {
		return true
	}
	from, n := g.rowsOf(g.window(w))
	return g.of.spans(g.matrix(g.offset+int64(m)*g.batchStride), from, n, d.span)
}

// pickScales copies a window of a grid of float32s, which is kept in rows of width scales.
func pickScales(dst []float32, all []byte, width int, w window) {
	n := w.cols()
	for r := range w.rows() {
		fp8.Scales(dst[r*n:][:n], all[4*((w.r0+r)*width+w.c0):][:4*n], fp8.F32)
	}
}

func (g *grid) unitSize(*Unit) int64 { return 4 * int64(g.rows) * int64(g.cols) }

func (g *grid) unitName(*Unit) string { return "scales " + g.src.Key }

// fillUnit reads the stored scales of one matrix.
func (g *grid) fillUnit(u *Unit, env FillEnv, dst []byte) error { return g.decode(env, u, dst) }

// decode reads the stored scales of one matrix as float32, in the orientation of the node.
func (g *grid) decode(in Input, u *Unit, dst []byte) error {
	if !g.transposed {
		return g.decodeStored(in, u, dst)
	}
	b := getBuffer(len(dst))
	defer b.put()
	if err := g.decodeStored(in, u, b.bytes); err != nil {
		return err
	}
	fp8.Transpose(dst, 4*g.rows, b.bytes, 4*g.cols, g.rows, g.cols, 4)
	return nil
}

// decodeStored reads the scales in the orientation in which they are stored.
func (g *grid) decodeStored(in Input, u *Unit, dst []byte) error {
	if _, plain := g.of.(*asStored); plain && g.src.DType == safetensors.F32 {
		return read(in, g.src, dst, u.key.Offset)
	}
	s := getFloats(g.rows * g.cols)
	defer s.put()
	if err := g.of.read(in, s.values, g.matrix(u.key.Offset), 0); err != nil {
		return err
	}
	putFloats(dst, s.values)
	return nil
}
