package expr

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

// numbers reads the grids of a stack of matrices.
type numbers interface {
	// read writes the grid of matrix m.
	read(in Input, dst []float32, m int) error
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
	if err := read(in, src, b.bytes, src.Offset+first*int64(format.Size())); err != nil {
		return err
	}
	fp8.Scales(dst, b.bytes, format)
	return nil
}

// asStored is scales as they are stored.
type asStored struct{ src *Source }

func (s *asStored) read(in Input, dst []float32, m int) error {
	return readNumbers(in, s.src, dst, int64(m)*int64(len(dst)))
}

// factored is stored scales with a second scale for each matrix, or for all.
type factored struct {
	src, second *Source
	divides     bool
	each        bool // each matrix has a second scale
}

func (f *factored) read(in Input, dst []float32, m int) error {
	if err := readNumbers(in, f.src, dst, int64(m)*int64(len(dst))); err != nil {
		return err
	}
	if !f.each {
		m = 0
	}
	second := getFloats(1)
	defer second.put()
	if err := readNumbers(in, f.second, second.values, int64(m)); err != nil {
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

// nested is scales that are quantized themselves.
type nested struct {
	src *Source // U8
	Nested
}

func (n *nested) read(in Input, dst []float32, m int) error {
	first, count := int64(m)*int64(len(dst)), int64(len(dst))
	lo, hi := first/n.Block, (first+count-1)/n.Block+1
	values, absmax := getFloats(256), getFloats(int(hi-lo))
	defer values.put()
	defer absmax.put()
	if err := readNumbers(in, n.Map, values.values, 0); err != nil {
		return err
	}
	if err := readNumbers(in, n.Absmax, absmax.values, lo); err != nil {
		return err
	}
	codes := getBuffer(len(dst))
	defer codes.put()
	if err := read(in, n.src, codes.bytes, n.src.Offset+first); err != nil {
		return err
	}
	for i, c := range codes.bytes {
		a := absmax.values[(first+int64(i))/n.Block-lo]
		dst[i] = float32(values.values[c]*a) + n.Offset
	}
	return nil
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

func (z *zeroPoints) read(in Input, dst []float32, m int) error {
	size, _, width := z.pack.packedSize(int64(z.rows), int64(z.cols))
	b, row := getBuffer(int(size)), getBuffer(z.cols)
	defer b.put()
	defer row.put()
	if err := read(in, z.src, b.bytes, z.src.Offset+int64(m)*z.stride); err != nil {
		return err
	}
	for r := range z.rows {
		z.unpackRow(row.bytes, b.bytes, r, int(width))
		z.number(dst[r*z.cols:][:z.cols], row.bytes)
	}
	return nil
}

// unpackRow writes row r, one zero point in each byte.
func (z *zeroPoints) unpackRow(dst, all []byte, r, width int) {
	p, bits, word := z.pack.pack, z.pack.pack.Bits, z.pack.word
	if !p.Down {
		fp8.Unpack(dst, all[r*width:][:width], 0, bits, p.Order)
		return
	}
	at, each := r*bits, 8*word
	low := all[at/each*width*word:]
	var high []byte
	if at%each+bits > each {
		high = low[width*word:]
	}
	fp8.UnpackDown(dst, low, high, word, at%each, bits)
}

// number turns stored zero points into numbers.
func (z *zeroPoints) number(dst []float32, codes []byte) {
	mask := 1<<z.pack.pack.Bits - 1
	for i, c := range codes {
		if z.signed {
			dst[i] = float32(int8(c))
		} else {
			dst[i] = float32((int(c) + z.plus) & mask)
		}
	}
}
