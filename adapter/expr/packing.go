package expr

import (
	"encoding/binary"
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// packing is a part of the packed codes of a batch of matrices, possibly seen transposed.
type packing struct {
	pack       Pack
	signed     bool
	offset8    bool   // codes of 8 bits are stored 128 higher
	word       int    // bytes of a word
	words      region // all of them, as bytes; as I32 if the codes of an I32 belong to one column
	full       [2]int // rows and columns of a whole matrix, as stored
	rows, cols int    // of the part, as stored
	r0, c0     int    // where the part begins
	transposed bool
	turned     unitList // the transposed codes of each matrix, if transposed and words are in rows
}

// newPacking checks that the words of codes have the size that the shape needs.
func newPacking(src *Source, shape []int64, pack Pack, h *header) (packing, error) {
	p := packing{pack: pack, word: wordSize(src)}
	batch, rows, cols := int64(1), shape[len(shape)-2], shape[len(shape)-1]
	if len(shape) == 3 {
		batch = shape[0]
	}
	size, height, width := p.packedSize(rows, cols)
	if n := h.size; n != batch*size {
		return p, fmt.Errorf("%s: %d bytes of shape %v: codes of %d bits and shape %v need %d",
			src.Key, n, src.Shape, pack.Bits, shape, batch*size)
	}
	p.full = [2]int{int(rows), int(cols)}
	p.rows, p.cols = p.full[0], p.full[1]
	words := *src
	words.DType, words.Shape = safetensors.U8, []int64{batch, height, width}
	if pack.Down && p.word == 4 {
		words.DType = safetensors.I32
	}
	wh, err := newHeader(words.DType, words.Shape)
	if err != nil {
		return p, fmt.Errorf("%s: %w", src.Key, err)
	}
	p.words = newRegion(&words, &wh)
	return p, nil
}

// wordSize returns the bytes of a word of packed codes. No format has words of more than 32 bits.
func wordSize(src *Source) int { return min(max(src.DType.Bits()/8, 1), 4) }

// packedSize returns the bytes of a matrix, and its rows and columns of bytes. If the codes of a
// word belong to one column, they are rows and columns of words.
func (p *packing) packedSize(rows, cols int64) (size, height, width int64) {
	bits, word := int64(p.pack.Bits), int64(p.word)
	if p.pack.Down {
		height = ceilDiv(rows*bits, 8*word)
		return height * cols * word, height, cols
	}
	width = ceilDiv(cols*bits, 8*word) * word
	return rows * width, rows, width
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// height returns the rows of each matrix as seen.
func (p *packing) height() int {
	if p.transposed {
		return p.cols
	}
	return p.rows
}

func (p packing) transpose() packing {
	p.transposed = !p.transposed
	if p.pack.Down {
		p.words = p.words.transpose()
	}
	return p
}

// narrow keeps the part s of an axis. The codes as seen have n axes.
func (p packing) narrow(n, axis int, s span) packing {
	fromEnd := n - axis
	if p.transposed && fromEnd <= 2 {
		fromEnd = 3 - fromEnd
	}
	lo, count := int(s.lo), int(s.hi-s.lo)
	switch fromEnd {
	case 1:
		p.c0, p.cols = p.c0+lo, count
	case 2:
		p.r0, p.rows = p.r0+lo, count
	case 3:
		p.words = p.words.narrow(3, 0, s)
	}
	return p
}

// seal makes the units. It is called when the packing has its final form.
func (p *packing) seal() {
	p.words.seal()
	p.turned = unitList{}
	if !p.transposed || p.pack.Down || p.rows == 0 || p.cols == 0 {
		return
	}
	whole := *p
	whole.rows, whole.cols, whole.r0, whole.c0 = p.full[0], p.full[1], 0, 0
	p.turned = newUnitList(p.words.batch, &whole)
}

// unitKey returns the key of the transposed matrix m.
func (p *packing) unitKey(m int) UnitKey {
	k := p.words.unitKey(m)
	k.Cols = int64(p.full[1])
	return k
}

// coded is a window of codes in memory, in a form that the kernels read.
type coded struct {
	lease
	coding fp8.Coding
	skip   int
}

// borrow returns the first rows of a window of matrix m, as seen.
func (p *packing) borrow(env Env, m int, w window) (coded, error) {
	switch {
	case p.transposed && p.pack.Down:
		return p.borrowStream(env, m, p.shifted(w))
	case p.transposed:
		return p.borrowTurned(env, m, p.shifted(w))
	case p.pack.Down:
		return p.borrowDown(env, m, p.shifted(w))
	}
	return p.borrowStream(env, m, p.shifted(w))
}

// shifted returns a window of the part as a window of the whole matrix, as seen.
func (p *packing) shifted(w window) window {
	r, c := p.r0, p.c0
	if p.transposed {
		r, c = c, r
	}
	return window{w.r0 + r, w.r1 + r, w.c0 + c, w.c1 + c}
}

// streamed returns the window of words that holds a window of codes, where each row is a stream of
// codes. first is the position of the window's first code in the first word.
func (p *packing) streamed(w window) (words window, first int) {
	bits, unit := p.pack.Bits, 1
	if p.pack.Down {
		unit = p.word
	}
	first = w.c0 % (8 * unit)
	words = window{w.r0, w.r1, w.c0 / (8 * unit) * bits, (w.c1*bits + 8*unit - 1) / (8 * unit)}
	if p.pack.Order == fp8.Interleaved {
		words.c1 = (w.c1 + 7) / 8 * 4
	}
	return words, first
}

// borrowStream returns rows of codes that follow each other in memory.
func (p *packing) borrowStream(env Env, m int, w window) (coded, error) {
	words, first := p.streamed(w)
	l, err := p.words.borrow(env, m, words)
	if err != nil {
		return coded{}, err
	}
	return p.present(l, first, w.cols()), nil
}

// present returns the rows of a lease, from code first on, in a form that the kernels read. It
// unpacks what they do not read as stored.
func (p *packing) present(l lease, first, cols int) coded {
	switch {
	case p.pack.Bits == 8:
		l.bytes = l.bytes[first:]
		return coded{l, p.byteCoding(), 0}
	case p.pack.Bits == 4 && p.pack.Order != fp8.Interleaved:
		l.bytes = l.bytes[first/2:]
		return coded{l, p.nibbles(), first % 2}
	}
	defer l.release()
	b := getBuffer(l.rows * cols)
	p.unpackRows(b.bytes, l.bytes, l.stride, first, cols, l.rows)
	return p.unpacked(b, cols, l.rows)
}

// unpackRows writes the codes of rows from code first on, a byte each.
func (p *packing) unpackRows(dst, src []byte, stride, first, cols, rows int) {
	size := fp8.PackedSize(first+cols, p.pack.Bits, p.pack.Order)
	for r := range rows {
		fp8.Unpack(dst[r*cols:][:cols], src[r*stride:][:size], first, p.pack.Bits, p.pack.Order)
	}
}

// unpacked describes rows of one code in each byte.
func (p *packing) unpacked(b *buffer, cols, rows int) coded {
	return coded{lease{bytes: b.bytes, stride: cols, rows: rows, buf: b}, p.byteCoding(), 0}
}

// nibbles returns the coding of codes of 4 bits as they are stored.
func (p *packing) nibbles() fp8.Coding {
	if p.pack.Order == fp8.HighFirst {
		return fp8.HighNibbles
	}
	return fp8.Nibbles
}

// byteCoding returns the coding of codes that have a byte each.
func (p *packing) byteCoding() fp8.Coding {
	switch {
	case p.pack.Bits < 8:
		return fp8.LowBytes
	case p.signed:
		return fp8.Int8
	case p.offset8:
		return fp8.Offset8
	}
	return fp8.Uint8
}

// wordRows returns the rows of words that hold the rows [r0, r1) of codes, if the codes of a word
// belong to one column. bit is the position of row r0 in its words.
func (p *packing) wordRows(r0, r1 int) (lo, hi, bit int) {
	each := 8 * p.word
	lo, hi = r0*p.pack.Bits/each, (r1*p.pack.Bits+each-1)/each
	return lo, hi, r0*p.pack.Bits - lo*each
}

// unpackDown writes a row of codes, one for each column of words. Their fields begin at a bit of
// the columns. Rows of words are stride bytes apart.
func (p *packing) unpackDown(dst, words []byte, stride, bit int) {
	each := 8 * p.word
	low := words[bit/each*stride:]
	var high []byte
	if bit%each+p.pack.Bits > each {
		high = low[stride:]
	}
	fp8.UnpackDown(dst, low, high, p.word, bit%each, p.pack.Bits)
}

// borrowDown reads words whose codes belong to one column and takes out the rows of the window.
func (p *packing) borrowDown(env Env, m int, w window) (coded, error) {
	w.r1 = min(w.r1, w.r0+max(1, chunk/w.cols()))
	lo, hi, bit := p.wordRows(w.r0, w.r1)
	l, err := p.words.take(env, m, window{lo, hi, w.c0, w.c1})
	if err != nil {
		return coded{}, err
	}
	defer l.release()
	cols := w.cols()
	b := getBuffer(w.rows() * cols)
	for r := range w.rows() {
		p.unpackDown(b.bytes[r*cols:][:cols], l.bytes, l.stride, bit+r*p.pack.Bits)
	}
	return p.unpacked(b, cols, w.rows()), nil
}

// borrowTurned returns rows of the transposed matrix.
func (p *packing) borrowTurned(env Env, m int, w window) (coded, error) {
	e, err := env.Unit(p.turned.at(m))
	if err != nil {
		return coded{}, err
	}
	if e != nil {
		stride := p.turnedSize(p.full[0])
		l := lease{bytes: e.Bytes()[w.r0*stride:], stride: stride, rows: w.rows(), entry: e}
		return p.presentTurned(l, w.c0), nil
	}
	w.r1 = min(w.r1, w.r0+max(1, 16*chunk/w.cols()))
	first := w.c0 % 2
	w.c0 -= first
	width := p.turnedSize(w.cols())
	b := getBuffer(w.rows() * width)
	if err := p.turn(env, b.bytes, width, m, w.turned()); err != nil {
		b.put()
		return coded{}, err
	}
	l := lease{bytes: b.bytes, stride: width, rows: w.rows(), buf: b}
	return p.presentTurned(l, first), nil
}

// turnedSize returns the bytes of n codes of a transposed row. Codes of 4 bits share a byte.
func (p *packing) turnedSize(n int) int {
	if p.pack.Bits == 4 {
		return (n + 1) / 2
	}
	return n
}

// presentTurned is present for rows that turn wrote.
func (p *packing) presentTurned(l lease, first int) coded {
	if p.pack.Bits == 4 {
		l.bytes = l.bytes[first/2:]
		return coded{l, fp8.Nibbles, first % 2}
	}
	l.bytes = l.bytes[first:]
	return coded{l, p.byteCoding(), 0}
}

// turn reads a window of matrix m, as stored, and writes it transposed. The window begins in an
// even row.
func (p *packing) turn(in Input, dst []byte, stride, m int, w window) error {
	words, first := p.streamed(w)
	l, err := p.words.take(in, m, words)
	if err != nil {
		return err
	}
	defer l.release()
	if p.pack.Bits == 8 {
		fp8.Transpose(dst, stride, l.bytes[first:], l.stride, w.rows(), w.cols(), 1)
		return nil
	}
	b := getBuffer(min(turnRows, w.rows()+w.rows()%2) * w.cols())
	defer b.put()
	for r := 0; r < w.rows(); r += turnRows {
		p.turnPart(dst[p.turnedSize(r):], stride, l.bytes[r*l.stride:], l.stride, b.bytes,
			min(turnRows, w.rows()-r), first, w.cols())
	}
	return nil
}

// turnRows is the rows that are transposed at once. They fill whole cache lines of the result.
const turnRows = 256

// lines rounds rows down to whole cache lines of the result, but to two rows at least.
func (p *packing) lines(rows int) int {
	line := 64
	if p.pack.Bits == 4 {
		line = 128
	}
	return max(rows/line*line, min(rows, line)&^1, 2)
}

// turnPart transposes rows of words, from code first on. b is memory for the codes.
func (p *packing) turnPart(dst []byte, stride int, src []byte, srcStride int, b []byte, rows, first,
	cols int) {
	p.unpackRows(b, src, srcStride, first, cols, rows)
	if p.pack.Bits == 4 {
		if rows%2 == 1 {
			clear(b[rows*cols:][:cols])
		}
		rows = (rows + 1) / 2
		pairRows(b, rows, cols)
	}
	fp8.Transpose(dst, stride, b, cols, rows, cols, 1)
}

// pairRows puts each pair of rows of codes into one row of bytes, in place. The first of the rows
// has the low nibbles.
func pairRows(b []byte, pairs, cols int) {
	for i := range pairs {
		dst, low, high := b[i*cols:][:cols], b[2*i*cols:][:cols], b[(2*i+1)*cols:][:cols]
		c := 0
		for ; c+8 <= cols; c += 8 {
			v := binary.LittleEndian.Uint64(low[c:]) | binary.LittleEndian.Uint64(high[c:])<<4
			binary.LittleEndian.PutUint64(dst[c:], v)
		}
		for ; c < cols; c++ {
			dst[c] = low[c] | high[c]<<4
		}
	}
}

func (p *packing) unitSize(*Unit) int64 {
	return int64(p.turnedSize(p.full[0])) * int64(p.full[1])
}

func (p *packing) unitName(u *Unit) string { return p.words.unitName(u) }

// fillUnit transposes a matrix in strips of rows.
func (p *packing) fillUnit(u *Unit, env FillEnv, dst []byte) error {
	m := int((u.key.Offset - p.words.offset) / max(p.words.batchStride, 1))
	rows, stride := p.stripRows(), p.turnedSize(p.full[0])
	fns := make([]func() error, 0, p.full[0]/rows+1)
	for r := 0; r < p.full[0]; r += rows {
		w := window{r, min(p.full[0], r+rows), 0, p.full[1]}
		fns = append(fns, func() error { return p.turn(env, dst[p.turnedSize(r):], stride, m, w) })
	}
	return env.Together(fns...)
}

// unitSpans reports the words of a unit.
func (p *packing) unitSpans(u *Unit, yield func(f File, off, n int64) bool) bool {
	return p.words.unitSpans(u, yield)
}

// stripRows returns the rows of a strip, an even number. A strip is one read, and packed codes are
// few bytes, so there are half as many strips as of other units.
func (p *packing) stripRows() int {
	return p.lines(min(p.full[0]*2/strips, strip/int(p.words.rowStride)))
}

// needs reports the needs of a window of matrix m, as seen.
func (p *packing) needs(m int, w window, d demand) bool {
	w = p.shifted(w)
	switch {
	case p.turned.of != nil:
		return d.unit == nil || d.unit(p.turned.at(m))
	case p.transposed:
		return d.unit == nil || d.unit(p.words.turned.at(m))
	case p.pack.Down:
		w.r0, w.r1, _ = p.wordRows(w.r0, w.r1)
	default:
		w, _ = p.streamed(w)
	}
	at := m * p.words.rows
	return p.words.needs(window{w.r0 + at, w.r1 + at, w.c0, w.c1}, d)
}
