package expr

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// DequantizeOptions relate scales to codes.
type DequantizeOptions struct {
	Block [2]int64          // rows and columns under one scale; 0 means the whole axis
	Out   safetensors.DType // dtype of the values: BF16, F16 or F32
}

// formats maps a dtype to the kernels' format.
var formats = map[safetensors.DType]fp8.Format{
	safetensors.F8E4M3: fp8.E4M3FN,
	safetensors.F8E5M2: fp8.E5M2,
	safetensors.F8E8M0: fp8.E8M0,
	safetensors.BF16:   fp8.BF16,
	safetensors.F16:    fp8.F16,
	safetensors.F32:    fp8.F32,
}

// plain returns the format of a dtype of plain values. It returns false for codes.
func plain(d safetensors.DType) (fp8.Format, bool) {
	f := formats[d]
	return f, f == fp8.BF16 || f == fp8.F16 || f == fp8.F32
}

// dequantize multiplies codes by the scales of their blocks.
type dequantize struct {
	header
	region region
	format fp8.Format // of the codes
	out    fp8.Format
	grid   grid
}

// Dequantize returns a node that multiplies the codes w by their scales. w is a matrix, or a stack
// of matrices (3-D), of F8_E4M3 or F8_E5M2. The node has w's shape and dtype o.Out. The product is
// rounded as package fp8 describes.
//
// The scales are F32, BF16, F16, or exponents of two (F8_E8M0 or U8). If scale is nil, the codes
// are the values.
//
// The grid of scales has one scale for each block of o.Block. It may be larger, and then its top
// left part counts. An axis with one block may be missing: [M] and [M, 1] hold a scale for each
// row, and [], [1] and [1, 1] hold one for the matrix. A stack has a grid for each matrix ([E], [E,
// 1, 1], …), or one grid of rank 0 or 1 for all.
//
// Other dtypes, other ranks and a grid that is too small are errors, which name the tensor.
func Dequantize(w, scale *Source, o DequantizeOptions) (Node, error) {
	h, err := checkSource(w)
	if err != nil {
		return nil, err
	}
	format := formats[w.DType]
	if format != fp8.E4M3FN && format != fp8.E5M2 {
		return nil, fmt.Errorf("%s: dtype %s holds no FP8 codes: expected F8_E4M3 or F8_E5M2",
			w.Key, w.DType)
	}
	if len(w.Shape) != 2 && len(w.Shape) != 3 {
		return nil, fmt.Errorf("%s: shape %v: expected a matrix, or a batch of matrices",
			w.Key, w.Shape)
	}
	out, ok := plain(o.Out)
	if !ok {
		return nil, fmt.Errorf("%s: cannot dequantize to %s: expected BF16, F16 or F32",
			w.Key, o.Out)
	}
	g, err := newGrid(w, scale, o.Block)
	if err != nil {
		return nil, err
	}
	return newDequantize(h.shape, newRegion(w, &h), format, out, o.Out, g)
}

func newDequantize(shape []int64, g region, format, out fp8.Format, d safetensors.DType,
	scales grid) (*dequantize, error) {
	h, err := newHeader(d, shape)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.src.Key, err)
	}
	n := &dequantize{header: h, region: g, format: format, out: out, grid: scales}
	n.self = n
	n.region.seal()
	n.grid.seal()
	return n, nil
}

// with returns the same node for another region and grid.
func (n *dequantize) with(shape []int64, g region, scales grid) (node, error) {
	return newDequantize(shape, g, n.format, n.out, n.dtype, scales)
}

func (n *dequantize) rect(env Env, dst []byte, stride int, w window) error {
	return eachMatrix(n, n.region.height(), env, dst, stride, w)
}

func (n *dequantize) matrix(env Env, dst []byte, stride, m int, w window) error {
	s, err := n.grid.borrow(env, m, w)
	if err != nil {
		return err
	}
	defer s.release()
	for {
		l, err := n.region.borrow(env, m, w)
		if err != nil {
			return err
		}
		fp8.Dequantize(dst, stride, n.out, &fp8.Matrix{
			Format: n.format, Codes: l.bytes, Stride: l.stride, Rows: l.rows, Cols: w.cols(),
			Row: s.row, Col: s.col, Block: n.grid.block, Scales: s.floats.values,
			ScaleStride: s.stride,
		})
		l.release()
		overflowed(env, n.out, dst, stride, l.rows, w.cols())
		if w.r0 += l.rows; w.rows() == 0 {
			return nil
		}
		s.row += l.rows
		dst = dst[l.rows*stride:]
	}
}

func (n *dequantize) needs(w window, d demand) bool {
	if !n.region.needs(w, d) {
		return false
	}
	for w.rows() > 0 && n.grid.inRows() {
		m, head, rest := w.cut(n.region.height())
		if !n.grid.needs(m, head, d) {
			return false
		}
		w = rest
	}
	return true
}

func (n *dequantize) needsRange(off, count int64, d demand) bool {
	if !n.region.whole() || n.grid.inRows() {
		return n.header.needsRange(off, count, d)
	}
	item := int64(n.item)
	lo, hi := off/item, (off+count+item-1)/item
	return d.span == nil || d.span(n.region.src.File, n.region.offset+lo, hi-lo)
}

func (n *dequantize) transpose() (node, error) {
	return n.with(swapped(n.shape), n.region.transpose(), n.grid.transpose())
}

func (n *dequantize) slice(axis int, lo, hi int64) (node, error) {
	rank := len(n.shape)
	return n.with(resized(n.shape, axis, hi-lo), n.region.narrow(rank, axis, span{lo: lo, hi: hi}),
		n.grid.narrow(rank-axis, lo, hi))
}

func (n *dequantize) index(i int64) (node, error) {
	rank := len(n.shape)
	return n.with(n.shape[1:], n.region.narrow(rank, 0, span{i, i + 1, true}),
		n.grid.narrow(rank, i, i+1))
}

func (n *dequantize) String() string {
	key, block := n.region.src.Key, n.grid.block
	if n.grid.src == nil {
		return n.named(fmt.Sprintf("decode(%s, %s)",
			n.region.name(), strings.ToLower(n.dtype.String())))
	}
	scale := shortened(n.grid.src.Key, key)
	if rest, ok := strings.CutPrefix(n.grid.src.Key, key); ok {
		scale = "…" + rest
	}
	if n.region.transposed {
		block[0], block[1] = block[1], block[0]
	}
	return n.named(fmt.Sprintf("dequantize(%s, %s, %s×%s, %s)", n.region.name(), scale,
		blockName(block[0]), blockName(block[1]), strings.ToLower(n.dtype.String())))
}

// named marks a recipe's text as transposed.
func (n *dequantize) named(s string) string {
	if n.region.transposed {
		return "transpose(" + s + ")"
	}
	return s
}

func blockName(n int) string {
	if n == 0 {
		return "all"
	}
	return fmt.Sprint(n)
}
