package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// numbers reads the grids of a stack of matrices.
type numbers interface {
	// read writes numbers of the grid of matrix m, from number first on.
	read(in Input, dst []float32, m, first int) error
	// spans yields what read takes from the source for n numbers, until yield returns false.
	spans(m, first, n int, yield func(f File, off, n int64) bool) bool
}

// numberFormats are the dtypes of stored numbers. A byte is always an exponent.
var numberFormats = map[safetensors.DType]fp8.Format{
	safetensors.F8E4M3: fp8.E4M3FN,
	safetensors.F8E8M0: fp8.E8M0,
	safetensors.U8:     fp8.E8M0,
	safetensors.BF16:   fp8.BF16,
	safetensors.F16:    fp8.F16,
	safetensors.F32:    fp8.F32,
}

// checkNumbers returns the header of stored numbers.
func checkNumbers(src *Source, what string) (header, error) {
	if _, ok := numberFormats[src.DType]; !ok {
		return header{}, fmt.Errorf("%s: %s of dtype %s: "+
			"expected F32, BF16, F16, F8_E4M3, F8_E8M0 or U8 (exponents)", src.Key, what, src.DType)
	}
	return checkSource(src)
}

// readNumbers reads stored numbers from number first.
func readNumbers(in Input, src *Source, dst []float32, first int64) error {
	format := numberFormats[src.DType]
	b := getBuffer(len(dst) * format.Size())
	defer b.put()
	if err := readLent(in, src, b.bytes, src.Offset+first*int64(format.Size())); err != nil {
		return err
	}
	fp8.Scales(dst, b.bytes, format)
	return nil
}

// readLent fills p from the file of a source. It copies the bytes that the environment has and
// reads the others.
func readLent(in Input, src *Source, p []byte, off int64) error {
	for len(p) > 0 {
		b, e, skip := lent(in, src.File, off, len(p), 1)
		n := len(b)
		if e != nil {
			copy(p, b)
			e.Release()
		} else {
			n = min(max(skip, 1), len(p))
			if err := read(in, src, p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// asStored is scales that are stored as plain numbers.
type asStored struct {
	src  *Source
	each int // numbers of each matrix
}

func (s *asStored) read(in Input, dst []float32, m, first int) error {
	return readNumbers(in, s.src, dst, int64(m)*int64(s.each)+int64(first))
}

func (s *asStored) spans(m, first, n int, yield func(File, int64, int64) bool) bool {
	size := int64(s.src.DType.Bits() / 8)
	return yield(s.src.File, s.src.Offset+(int64(m)*int64(s.each)+int64(first))*size, int64(n)*size)
}

// kept is a short list of stored numbers that every read needs. It is a unit of its own.
type kept struct {
	src  *Source
	unit Unit
}

func newKept(src *Source, count int64) *kept {
	k := &kept{src: src}
	key := UnitKey{File: src.File, Offset: src.Offset, Kind: Grid, Rows: 1, Cols: count}
	k.unit = Unit{key, k}
	return k
}

func (k *kept) unitSize(u *Unit) int64 { return 4 * u.key.Cols }

func (k *kept) unitName(*Unit) string { return "numbers " + k.src.Key }

func (k *kept) fillUnit(u *Unit, env FillEnv, dst []byte) error {
	s := getFloats(int(u.key.Cols))
	defer s.put()
	if err := readNumbers(env, k.src, s.values, 0); err != nil {
		return err
	}
	putFloats(dst, s.values)
	return nil
}

// read writes numbers from number first on. A fill reads them from the source.
func (k *kept) read(in Input, dst []float32, first int64) error {
	env, ok := in.(Env)
	if !ok {
		return readNumbers(in, k.src, dst, first)
	}
	e, err := env.Unit(&k.unit)
	if err != nil {
		return err
	}
	if e == nil {
		return readNumbers(in, k.src, dst, first)
	}
	defer e.Release()
	fp8.Scales(dst, e.Bytes()[4*first:][:4*len(dst)], fp8.F32)
	return nil
}

// factored is stored scales with a second scale for each matrix, or for all.
type factored struct {
	asStored
	second     *kept
	divides    bool
	eachHasOwn bool // each matrix has a second scale
}

func (f *factored) read(in Input, dst []float32, m, first int) error {
	if err := f.asStored.read(in, dst, m, first); err != nil {
		return err
	}
	second := getFloats(1)
	defer second.put()
	if err := f.second.read(in, second.values, f.secondOf(m)); err != nil {
		return err
	}
	if f.divides {
		for i := range dst {
			dst[i] = float32(dst[i] / second.values[0])
		}
		return nil
	}
	for i := range dst {
		dst[i] = float32(dst[i] * second.values[0])
	}
	return nil
}

// secondOf returns the position of the second scale of matrix m.
func (f *factored) secondOf(m int) int64 {
	if f.eachHasOwn {
		return int64(m)
	}
	return 0
}

func (f *factored) spans(m, first, n int, yield func(File, int64, int64) bool) bool {
	src := f.second.src
	size := int64(src.DType.Bits() / 8)
	return f.asStored.spans(m, first, n, yield) &&
		yield(src.File, src.Offset+f.secondOf(m)*size, size)
}

// nested is scales that are quantized themselves.
type nested struct {
	src    *Source // U8
	each   int     // scales of each matrix
	values *kept   // of Map
	Nested
}

func (n *nested) read(in Input, dst []float32, m, from int) error {
	first, lo, hi := n.blocks(m, from, len(dst))
	values, absmax := getFloats(256), getFloats(int(hi-lo))
	defer values.put()
	defer absmax.put()
	if err := n.values.read(in, values.values, 0); err != nil {
		return err
	}
	if err := readNumbers(in, n.Absmax, absmax.values, lo); err != nil {
		return err
	}
	codes := getBuffer(len(dst))
	defer codes.put()
	if err := readLent(in, n.src, codes.bytes, n.src.Offset+first); err != nil {
		return err
	}
	for i, c := range codes.bytes {
		a := absmax.values[(first+int64(i))/n.Block-lo]
		dst[i] = float32(values.values[c]*a) + n.Offset
	}
	return nil
}

// blocks returns the position of a scale in the list of all, and the blocks of count scales.
func (n *nested) blocks(m, from, count int) (first, lo, hi int64) {
	first = int64(m)*int64(n.each) + int64(from)
	return first, first / n.Block, (first+int64(count)-1)/n.Block + 1
}

func (n *nested) spans(m, from, count int, yield func(File, int64, int64) bool) bool {
	first, lo, hi := n.blocks(m, from, count)
	return yield(n.src.File, n.src.Offset+first, int64(count)) &&
		yield(n.Absmax.File, n.Absmax.Offset+4*lo, 4*(hi-lo)) &&
		yield(n.Map.File, n.Map.Offset, 4*256)
}

// zeroPoints is packed zero points.
type zeroPoints struct {
	src        *Source
	pack       packing
	plus       int
	signed     bool
	rows, cols int
	stride     int64 // bytes from one matrix to the next; 0: one grid for all
}

func (z *zeroPoints) read(in Input, dst []float32, m, first int) error {
	r0, r1 := first/z.cols, (first+len(dst)-1)/z.cols+1
	off, size, bit := z.stored(m, r0, r1)
	b, row := getBuffer(int(size)), getBuffer(z.cols)
	defer b.put()
	defer row.put()
	if err := readLent(in, z.src, b.bytes, off); err != nil {
		return err
	}
	for r := r0; r < r1; r++ {
		z.unpackRow(row.bytes, b.bytes, r-r0, bit)
		from := max(first-r*z.cols, 0)
		n := z.number(dst, row.bytes[from:])
		dst = dst[n:]
	}
	return nil
}

func (z *zeroPoints) spans(m, first, n int, yield func(File, int64, int64) bool) bool {
	off, size, _ := z.stored(m, first/z.cols, (first+n-1)/z.cols+1)
	return yield(z.src.File, off, size)
}

// stored returns the bytes that hold the rows [r0, r1) of a grid. If the zero points of a word
// belong to one column, bit is the position of the first row in its words.
func (z *zeroPoints) stored(m, r0, r1 int) (off, size int64, bit int) {
	_, _, width := z.pack.packedSize(int64(z.rows), int64(z.cols))
	at := z.src.Offset + int64(m)*z.stride
	if !z.pack.pack.Down {
		return at + int64(r0)*width, int64(r1-r0) * width, 0
	}
	lo, hi, bit := z.pack.wordRows(r0, r1)
	width *= int64(z.pack.word)
	return at + int64(lo)*width, int64(hi-lo) * width, bit
}

// unpackRow writes a row of what stored describes, one zero point in each byte.
func (z *zeroPoints) unpackRow(dst, all []byte, r, bit int) {
	p := z.pack.pack
	_, _, width := z.pack.packedSize(int64(z.rows), int64(z.cols))
	if !p.Down {
		fp8.Unpack(dst, all[r*int(width):][:width], 0, p.Bits, p.Order)
		return
	}
	z.pack.unpackDown(dst, all, int(width)*z.pack.word, bit+r*p.Bits)
}

// number turns stored zero points into numbers. It returns how many dst and codes both hold.
func (z *zeroPoints) number(dst []float32, codes []byte) int {
	mask := 1<<z.pack.pack.Bits - 1
	n := min(len(dst), len(codes))
	for i, c := range codes[:n] {
		if z.signed {
			dst[i] = float32(int8(c))
		} else {
			dst[i] = float32((int(c) + z.plus) & mask)
		}
	}
	return n
}
