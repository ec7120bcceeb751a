package fp8

import (
	"encoding/binary"
	"math"
)

// product returns the magnitude of a code times a scale. It has the sign of the scale, and every
// NaN is quiet.
func product(magnitude, scale float32) float32 {
	v := float32(magnitude * scale)
	if v != v {
		return math.Float32frombits(quietF32)
	}
	return v
}

// fillTableGeneric fills t with the results of all codes of format f for one scale.
func fillTableGeneric(t *[256]uint16, scale float32, f, out Format) {
	values := f.Values()
	round := RoundBF16
	if out == F16 {
		round = RoundF16
	}
	for c := range 128 {
		w := round(product(values[c], scale))
		t[c], t[c+128] = w, w^0x8000
	}
}

func (s *scratch) fillTablesGeneric(b *band, width int, scales []float32) tables {
	if b.uses(width) < 512 {
		return noTables
	}
	s.powers = [maxTables]float32{}
	for i, scale := range scales {
		fillTableGeneric((*[256]uint16)(s.words[256*i:]), scale, b.format, b.out)
	}
	return wordTables
}

// byPowers decodes if all scales are powers of two. Few of those occur, so it keeps their tables
// for the blocks that follow. It returns the number of decoded columns: all or none.
func (s *scratch) byPowers(b *band, first, width int, scales []float32) int {
	if min(width, b.cols) < 16 {
		return 0
	}
	n := 1 + ceilDiv(max(0, b.cols-first), width)
	for _, scale := range scales[:n] {
		if u := math.Float32bits(scale); u == 0 || u<<9 != 0 || u >= 0xff<<23 {
			return 0
		}
	}
	for r := range b.rows {
		dst, codes := b.dst[r*b.dstStride:], b.codes[r*b.stride:][:b.cols]
		next := first
		for i := 0; len(codes) > 0; i++ {
			n := min(next, len(codes))
			lookup(dst[:2*n], codes[:n], s.tableOfPower(b, scales[i]))
			dst, codes, next = dst[2*n:], codes[n:], width
		}
	}
	return b.cols
}

// tableOfPower returns the table of a scale that is a power of two. Its place follows from the
// exponent.
func (s *scratch) tableOfPower(b *band, scale float32) *[256]uint16 {
	i := math.Float32bits(scale) >> 23 % maxTables
	t := (*[256]uint16)(s.words[256*i:])
	if s.powers[i] != scale {
		s.powers[i] = scale
		fillTableGeneric(t, scale, b.format, b.out)
	}
	return t
}

// rowByTableGeneric looks codes up in the tables of their blocks, of 256 words each. The first
// block has first columns, the others have width.
func rowByTableGeneric(dst, codes []byte, first, width int, words []uint16) {
	for len(codes) > 0 {
		n := min(first, len(codes))
		lookup(dst[:2*n], codes[:n], (*[256]uint16)(words))
		dst, codes, words, first = dst[2*n:], codes[n:], words[256:], width
	}
}

// lookup takes 16 codes at a time and stores words of eight bytes. Storing each result alone takes
// half as long again.
func lookup(dst, codes []byte, t *[256]uint16) {
	dst = dst[:2*len(codes)]
	i := 0
	for ; i+16 <= len(codes); i += 16 {
		c, d := (*[16]byte)(codes[i:]), (*[32]byte)(dst[2*i:])
		binary.LittleEndian.PutUint64(d[0:],
			uint64(t[c[0]])|uint64(t[c[1]])<<16|uint64(t[c[2]])<<32|uint64(t[c[3]])<<48)
		binary.LittleEndian.PutUint64(d[8:],
			uint64(t[c[4]])|uint64(t[c[5]])<<16|uint64(t[c[6]])<<32|uint64(t[c[7]])<<48)
		binary.LittleEndian.PutUint64(d[16:],
			uint64(t[c[8]])|uint64(t[c[9]])<<16|uint64(t[c[10]])<<32|uint64(t[c[11]])<<48)
		binary.LittleEndian.PutUint64(d[24:],
			uint64(t[c[12]])|uint64(t[c[13]])<<16|uint64(t[c[14]])<<32|uint64(t[c[15]])<<48)
	}
	for ; i < len(codes); i++ {
		binary.LittleEndian.PutUint16(dst[2*i:], t[codes[i]])
	}
}

// rowByColumnGeneric multiplies each code by the scale of its column.
func rowByColumnGeneric(dst []byte, out Format, codes []byte, f Format, scales []float32) {
	values := f.Values()
	scales = scales[:len(codes)]
	switch out {
	case F32:
		for i, c := range codes {
			binary.LittleEndian.PutUint32(dst[4*i:],
				math.Float32bits(product(values[c&0x7f], scales[i]))^uint32(c&0x80)<<24)
		}
	case F16:
		for i, c := range codes {
			binary.LittleEndian.PutUint16(dst[2*i:],
				RoundF16(product(values[c&0x7f], scales[i]))^uint16(c&0x80)<<8)
		}
	default:
		for i, c := range codes {
			binary.LittleEndian.PutUint16(dst[2*i:],
				RoundBF16(product(values[c&0x7f], scales[i]))^uint16(c&0x80)<<8)
		}
	}
}
