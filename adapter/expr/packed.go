package expr

import (
	"fmt"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// Packed describes a weight whose codes are smaller than a byte, or are whole numbers.
//
// An element is round((number - zero) × scale). [fp8.DequantizeGroups] describes the arithmetic.
type Packed struct {
	Codes  *Source // the packed words; of its dtype only the size counts
	Shape  []int64 // of the codes: a matrix, or a stack of matrices
	Pack   Pack
	Values *[16]float32 // the numbers of codes of at most 4 bits; nil: whole numbers from 0
	Signed bool         // codes of 8 bits are two's complement
	Scales Scales
	Zeros  Zeros
	Groups Groups
	Out    safetensors.DType // BF16, F16 or F32
}

// Pack is how the codes of a matrix lie in words.
type Pack struct {
	Bits  int       // 2, 3, 4 or 8
	Order fp8.Order // of the codes in a word
	Down  bool      // the codes of a word belong to one column, not to one row
}

// Scales is a grid of scales in the orientation of the codes. A stack has a grid for each matrix,
// or one for all.
type Scales struct {
	Source *Source  // F32, BF16, F16, F8_E4M3, or exponents of two (F8_E8M0 or U8)
	Block  [2]int64 // rows and columns under one scale; 0 is the whole axis

	// Second is a second scale: one number, or one for each matrix. The scales are multiplied by
	// it, or divided if Divides is set, and rounded to float32. nil: there is none.
	Second  *Source
	Divides bool

	// Nested decodes scales that are codes themselves (U8). nil: they are not.
	Nested *Nested
}

// Nested describes scales that are quantized. Scale i is Map[code] × Absmax[i / Block] + Offset,
// where the product and the sum are each rounded to float32.
type Nested struct {
	Map    *Source // F32 [256]
	Absmax *Source // F32
	Block  int64
	Offset float32
}

// Zeros is a grid of zero points in the same places as the scales. Without a source, all are
// Constant.
type Zeros struct {
	Source   *Source
	Pack     Pack
	Signed   bool // zero points of 8 bits are two's complement
	Plus     int  // added to each stored zero point, modulo 2^Bits
	Constant int
}

// Groups says which group each row or column of the codes belongs to. Without a source, groups
// follow each other in the blocks of the scales.
type Groups struct {
	Source *Source // I32, one for each row or column
	Axis   int     // 0: of rows; 1: of columns
}

// packed is the node of a packed weight.
type packed struct {
	header
	codes  packing
	values *[16]float32
	out    fp8.Format
	scales grid
	zeros  *grid   // nil: every zero point is zero
	zero   float32 // of all codes, unless values or codes include it
}

// DequantizePacked returns a node with the values of a packed weight. The node has the shape
// p.Shape and the dtype p.Out. Sources whose sizes do not fit are errors, which name the tensor.
func DequantizePacked(p *Packed) (Node, error) {
	h, err := checkSource(p.Codes)
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	n := &packed{values: p.Values}
	n.out, _ = plain(p.Out)
	if n.codes, err = newPacking(p.Codes, p.Shape, p.Pack, &h); err != nil {
		return nil, err
	}
	n.codes.signed = p.Signed
	if n.scales, err = p.grid(); err != nil {
		return nil, err
	}
	if err := n.subtract(p); err != nil {
		return nil, err
	}
	return n.sealed(p.Out, p.Shape)
}

// check refuses fields that do not go together.
func (p *Packed) check() error {
	_, ok := plain(p.Out)
	bits := p.Pack.Bits
	switch {
	case !ok:
		return fmt.Errorf("%s: cannot dequantize to %s: expected BF16, F16 or F32", p.Codes.Key,
			p.Out)
	case len(p.Shape) != 2 && len(p.Shape) != 3:
		return fmt.Errorf("%s: codes of shape %v: expected a matrix, or a stack of matrices",
			p.Codes.Key, p.Shape)
	case bits != 2 && bits != 3 && bits != 4 && bits != 8, p.Values != nil && bits == 8,
		p.Signed && bits != 8, p.Pack.Down && p.Pack.Order != fp8.LowFirst,
		p.Pack.Order != fp8.LowFirst && bits != 4:
		return fmt.Errorf("%s: codes of %d bits in order %d, down %t, signed %t: not decoded",
			p.Codes.Key, bits, p.Pack.Order, p.Pack.Down, p.Signed)
	}
	return checkBlock(p.Scales.Source, p.Scales.Block)
}

// grid makes the grid of the scales.
func (p *Packed) grid() (grid, error) {
	s := &p.Scales
	need := neededGrid(&Source{Shape: p.Shape}, s.Block)
	g := grid{src: s.Source, offset: s.Source.Offset, batch: int(need[0])}
	if len(p.Shape) == 2 {
		g.batch = 1
	}
	h, err := p.scalesHeader()
	if err != nil {
		return g, err
	}
	g.block = [2]int{int(s.Block[0]), int(s.Block[1])}
	count := h.size / int64(h.item)
	if err := p.group(&g, &need, count); err != nil {
		return g, err
	}
	each := need[1] * need[2]
	switch {
	case count == need[0]*each && need[0] > 1:
		g.batchStride = each * int64(h.item)
	case count != each:
		return g, fmt.Errorf("%s: %d scales of shape %v: %s of shape %v in blocks of %s × %s "+
			"needs %v", s.Source.Key, count, s.Source.Shape, p.Codes.Key, p.Shape,
			blockName(int(s.Block[0])), blockName(int(s.Block[1])), need[3-len(p.Shape):])
	}
	g.rows, g.cols = int(need[1]), int(need[2])
	g.of, err = s.numbers(int(each), need[0], g.batchStride == 0)
	return g, err
}

// scalesHeader checks the scales. The dtype of nested scales is checked with their other tensors.
func (p *Packed) scalesHeader() (header, error) {
	if p.Scales.Nested == nil {
		return checkNumbers(p.Scales.Source, "scales")
	}
	return checkSource(p.Scales.Source)
}

// group replaces the blocks along an axis by the groups of a list.
func (p *Packed) group(g *grid, need *[3]int64, count int64) (err error) {
	if p.Groups.Source == nil {
		return nil
	}
	axis := p.Groups.Axis
	other := need[0] * need[2-axis]
	if len(p.Shape) == 2 {
		other = need[2-axis]
	}
	if other == 0 || count%other != 0 {
		return fmt.Errorf("%s: %d scales of shape %v over %d rows or columns: expected a multiple",
			p.Scales.Source.Key, count, p.Scales.Source.Shape, other)
	}
	need[1+axis] = count / other
	g.block[axis] = 1
	g.groups, err = newGroups(p.Groups, p.Shape[len(p.Shape)-2+axis], int(count/other))
	return err
}

// numbers returns the reader of scales that are not floats as they are stored.
func (s *Scales) numbers(each int, batch int64, shared bool) (numbers, error) {
	switch {
	case s.Nested != nil:
		return s.nested(each)
	case s.Second == nil:
		return &asStored{s.Source, each}, nil
	}
	h, err := checkNumbers(s.Second, "second scale")
	if err != nil {
		return nil, err
	}
	n := h.size / int64(h.item)
	if n != 1 && (n != batch || shared) {
		return nil, fmt.Errorf("%s: second scale of shape %v: expected one number, or one for "+
			"each of %d matrices with scales of their own", s.Second.Key, s.Second.Shape, batch)
	}
	return &factored{asStored{s.Source, each}, newKept(s.Second, n), s.Divides, n > 1}, nil
}

// nested returns the reader of scales that are codes, of which each matrix has as many.
func (s *Scales) nested(each int) (numbers, error) {
	n := s.Nested
	absmax, err := checkSource(n.Absmax)
	if err != nil {
		return nil, err
	}
	values, err := checkSource(n.Map)
	if err != nil {
		return nil, err
	}
	codes, err := checkSource(s.Source)
	if err != nil {
		return nil, err
	}
	if s.Source.DType != safetensors.U8 || n.Map.DType != safetensors.F32 ||
		n.Absmax.DType != safetensors.F32 || n.Block < 1 || values.size != 4*256 ||
		absmax.size != 4*ceilDiv(codes.size, n.Block) {
		return nil, fmt.Errorf("%s: %s scales of shape %v in blocks of %d with %s %v and %s %v: "+
			"expected U8, F32 and F32, 256 values and a number for each block", s.Source.Key,
			s.Source.DType, s.Source.Shape, n.Block, n.Map.Key, n.Map.Shape, n.Absmax.Key,
			n.Absmax.Shape)
	}
	return &nested{s.Source, each, newKept(n.Map, 256), *n}, nil
}

// subtract makes the zero points. One that all codes share is subtracted from the table of their
// numbers, if they have one. That costs nothing for each element.
func (n *packed) subtract(p *Packed) error {
	bits := p.Pack.Bits
	if n.values == nil && bits < 8 {
		n.values = new([16]float32)
		for i := range n.values {
			n.values[i] = float32(i)
		}
	}
	z := p.Zeros
	switch {
	case z.Source != nil:
		return n.subtractGrid(p)
	case z.Constant == 0:
	case bits < 8:
		shifted := *n.values
		for i := range shifted {
			shifted[i] = float32(shifted[i] - float32(z.Constant))
		}
		n.values = &shifted
	case z.Constant == 128 && !p.Signed:
		n.codes.offset8 = true
	default:
		n.zero = float32(z.Constant)
	}
	return nil
}

// subtractGrid makes the grid of the zero points.
func (n *packed) subtractGrid(p *Packed) error {
	z := p.Zeros
	h, err := checkSource(z.Source)
	if err != nil {
		return err
	}
	g := n.scales
	of := &zeroPoints{src: z.Source, plus: z.Plus, signed: z.Signed, rows: g.rows, cols: g.cols}
	of.pack = packing{pack: z.Pack, word: wordSize(z.Source)}
	size, _, _ := of.pack.packedSize(int64(g.rows), int64(g.cols))
	switch {
	case g.batchStride > 0 && h.size == int64(g.batch)*size:
		of.stride = size
	case h.size != size:
		return fmt.Errorf("%s: %d bytes of shape %v: zero points of %d bits for scales of %d × %d "+
			"need %d", z.Source.Key, h.size, z.Source.Shape, z.Pack.Bits, g.rows, g.cols, size)
	}
	g.src, g.offset, g.batchStride, g.of = z.Source, z.Source.Offset, of.stride, of
	n.zeros = &g
	return nil
}

// sealed returns the node with its units.
func (n *packed) sealed(d safetensors.DType, shape []int64) (node, error) {
	h, err := newHeader(d, shape)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.codes.words.src.Key, err)
	}
	n.header = h
	n.self = n
	n.codes.seal()
	n.scales.seal()
	if n.zeros != nil {
		n.zeros.seal()
	}
	return n, nil
}

// with returns the same node for another part of the codes. change applies to each grid.
func (n *packed) with(shape []int64, codes packing, change func(grid) grid) (node, error) {
	m := *n
	m.codes, m.scales = codes, change(n.scales)
	if n.zeros != nil {
		z := change(*n.zeros)
		m.zeros = &z
	}
	return m.sealed(n.dtype, shape)
}

func (n *packed) rect(env Env, dst []byte, stride int, w window) error {
	return eachMatrix(n, n.codes.height(), env, dst, stride, w)
}

// matrix evaluates a window of matrix m, as many rows at a time as the codes are lent.
func (n *packed) matrix(env Env, dst []byte, stride, m int, w window) error {
	s, err := n.scales.borrow(env, m, w)
	if err != nil {
		return err
	}
	defer s.release()
	z, err := n.borrowZeros(env, m, w, len(s.floats.values))
	if err != nil {
		return err
	}
	defer z.put()
	for {
		l, err := n.codes.borrow(env, m, w)
		if err != nil {
			return err
		}
		fp8.DequantizeGroups(dst, stride, n.out, &fp8.Groups{
			Coding: l.coding, Values: n.values, Codes: l.bytes, Stride: l.stride, Skip: l.skip,
			Rows: l.rows, Cols: w.cols(), Row: s.row, Col: s.col, Block: n.scales.block,
			Scales: s.floats.values, Zeros: z.of(), ScaleStride: s.stride,
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

// borrowZeros returns the zero points in the places of the scales.
func (n *packed) borrowZeros(env Env, m int, w window, count int) (*floats, error) {
	switch {
	case n.zeros != nil:
		z, err := n.zeros.borrow(env, m, w)
		return z.floats, err
	case n.zero == 0:
		return nil, nil
	}
	f := getFloats(count)
	for i := range f.values {
		f.values[i] = n.zero
	}
	return f, nil
}

func (n *packed) needs(w window, d demand) bool {
	for w.rows() > 0 {
		m, head, rest := w.cut(n.codes.height())
		if !n.codes.needs(m, head, d) || !n.scales.needs(m, head, d) || !n.zeros.needs(m, head, d) {
			return false
		}
		w = rest
	}
	return true
}

func (n *packed) transpose() (node, error) {
	return n.with(swapped(n.shape), n.codes.transpose(), grid.transpose)
}

func (n *packed) slice(axis int, lo, hi int64) (node, error) {
	rank := len(n.shape)
	return n.with(resized(n.shape, axis, hi-lo), n.codes.narrow(rank, axis, span{lo: lo, hi: hi}),
		func(g grid) grid { return g.narrow(rank-axis, lo, hi) })
}

func (n *packed) index(i int64) (node, error) {
	rank := len(n.shape)
	return n.with(n.shape[1:], n.codes.narrow(rank, 0, span{i, i + 1, true}),
		func(g grid) grid { return g.narrow(rank, i, i+1) })
}

// String names every stored tensor that the weight is computed from.
func (n *packed) String() string {
	key := n.codes.words.src.Key
	s := fmt.Sprintf("unpack(%s, %d bits, %s%s, %s, ", n.codes.words.name(), n.codes.pack.Bits,
		shortened(n.scales.src.Key, key), factorOf(n.scales.of, key), n.groupsName())
	if n.zeros != nil {
		s += "zeros " + shortened(n.zeros.src.Key, key) + ", "
	}
	s += strings.ToLower(n.dtype.String()) + ")"
	if n.codes.transposed {
		return "transpose(" + s + ")"
	}
	return s
}

// factorOf names the tensor that decodes the scales, or that they are multiplied by.
func factorOf(of numbers, key string) string {
	switch of := of.(type) {
	case *factored:
		if of.divides {
			return " ÷ " + shortened(of.second.src.Key, key)
		}
		return " × " + shortened(of.second.src.Key, key)
	case *nested:
		return " × " + shortened(of.Absmax.Key, key)
	}
	return ""
}

// groupsName describes the codes under one scale, in the orientation of the stored codes.
func (n *packed) groupsName() string {
	block := n.scales.block
	if n.codes.transposed {
		block[0], block[1] = block[1], block[0]
	}
	l := n.scales.groups
	if l == nil {
		return blockName(block[0]) + "×" + blockName(block[1])
	}
	axis := "rows"
	if (l.axis == 1) != n.codes.transposed {
		axis = "columns"
	}
	return axis + " by " + shortened(l.src.Key, n.codes.words.src.Key)
}

// shortened returns a key without the beginning that it shares with another, up to a dot.
func shortened(key, with string) string {
	i := 0
	for i < min(len(key), len(with)) && key[i] == with[i] {
		i++
	}
	if i = strings.LastIndexByte(key[:i], '.'); i > 0 {
		return "…" + key[i:]
	}
	return key
}
