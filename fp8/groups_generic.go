package fp8

import (
	"encoding/binary"
	"math"
)

// scaled returns (v - zero) × scale. Every NaN is the positive quiet NaN.
func scaled(v, zero, scale float32) float32 {
	v = float32(float32(v-zero) * scale)
	if v != v {
		return math.Float32frombits(quietF32)
	}
	return v
}

// scaledBF16 rounds the result of scaled.
func scaledBF16(v, zero, scale float32) uint16 {
	v = float32(float32(v-zero) * scale)
	if v != v {
		return quietBF16
	}
	u := math.Float32bits(v)
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// tameBF16 is scaledBF16 for tame arguments, whose result is a number.
func tameBF16(v, zero, scale float32) uint16 {
	u := math.Float32bits(float32(float32(v-zero) * scale))
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// isTame reports whether v is finite and so small that a difference of two such numbers is finite.
func isTame(v float32) bool { return v >= -0x1p126 && v <= 0x1p126 }

// areTame reports whether all of v are tame.
func areTame(v []float32) bool {
	for _, v := range v {
		if !isTame(v) {
			return false
		}
	}
	return true
}

// rowOfGroupsGeneric decodes whole sixteens of codes. The first group has first columns, and the
// others have b.width. zeros may be nil.
func (s *scratch) rowOfGroupsGeneric(dst, codes []byte, b *strip, first int,
	scales, zeros []float32) {
	size, paired := b.out.Size(), b.coding.paired()
	for i := 0; len(dst) > 0; i++ {
		n := min(first, len(dst)/size)
		bytes := n
		if paired {
			bytes = n / 2
		}
		var zero float32
		if zeros != nil {
			zero = zeros[i]
		}
		if paired && size == 2 {
			lookupNibbles(dst[:2*n], codes[:bytes], s.resultsOf(b, scales[i], zero), b.coding)
		} else {
			s.groupGeneric(dst[:n*size], codes[:bytes], b, scales[i], zero)
		}
		dst, codes, first = dst[n*size:], codes[bytes:], b.width
	}
}

// groupGeneric decodes codes that share a scale. It looks the results up if there are many codes.
func (s *scratch) groupGeneric(dst, codes []byte, b *strip, scale, zero float32) {
	switch {
	case b.out != F32 && len(codes) >= 512:
		t := (*[256]uint16)(s.words[:])
		fillGeneric(t[:], b, scale, zero)
		lookup(dst, codes, t)
	case b.out == BF16 && b.isTame(scale, zero):
		multiplyTame(dst, codes, b.values, scale, zero)
	default:
		s.groupByColumn(dst, codes, b, scale, zero)
	}
}

// isTame reports whether no result of a group is NaN.
func (b *strip) isTame(scale, zero float32) bool {
	return b.tame && isTame(scale) && isTame(zero)
}

// multiplyTame takes 4 codes at a time.
func multiplyTame(dst, codes []byte, values *[256]float32, scale, zero float32) {
	dst = dst[:2*len(codes)]
	for i := 0; i+4 <= len(codes); i += 4 {
		c, d := (*[4]byte)(codes[i:]), (*[8]byte)(dst[2*i:])
		binary.LittleEndian.PutUint16(d[0:], tameBF16(values[c[0]], zero, scale))
		binary.LittleEndian.PutUint16(d[2:], tameBF16(values[c[1]], zero, scale))
		binary.LittleEndian.PutUint16(d[4:], tameBF16(values[c[2]], zero, scale))
		binary.LittleEndian.PutUint16(d[6:], tameBF16(values[c[3]], zero, scale))
	}
}

// groupByColumn decodes a group of which each column has the same scale.
func (s *scratch) groupByColumn(dst, codes []byte, b *strip, scale, zero float32) {
	size := b.out.Size()
	n := len(dst) / size
	for i := range min(n, chunk) {
		s.scales[i], s.zeros[i] = scale, zero
	}
	for c := 0; c < n; c += chunk {
		n := min(chunk, n-c)
		each := b.bytes(s.codes[:n], codes, c)
		multiply(dst[c*size:], b.out, each, b.values, s.scales[:n], s.zeros[:n])
	}
}

// memory is a table of the results of the 16 codes of a group, for each of several recent pairs of
// a scale and a zero point. Many groups have the same few scales, if a scale has 8 bits.
type memory struct {
	keys   [512]uint64
	tables [512][sixteen]uint16
}

// forget empties the memory. Empty places have key 0, which only the first table may have. So that
// table is filled.
func (y *memory) forget(b *strip) {
	clear(y.keys[:])
	fillGeneric(y.tables[0][:], b, 0, 0)
}

// resultsOf returns the table of a scale and a zero point, as BF16 or F16.
func (y *memory) resultsOf(b *strip, scale, zero float32) *[sixteen]uint16 {
	key := uint64(math.Float32bits(scale)) | uint64(math.Float32bits(zero))<<32
	i := key * 0x9e3779b97f4a7c15 >> 55
	if y.keys[i] != key {
		y.keys[i] = key
		fillGeneric(y.tables[i][:], b, scale, zero)
	}
	return &y.tables[i]
}

// fillGeneric computes the results of the first codes, as BF16 or F16.
func fillGeneric(t []uint16, b *strip, scale, zero float32) {
	values := b.values[:len(t)]
	switch {
	case b.out == F16:
		for i, v := range values {
			t[i] = RoundF16(scaled(v, zero, scale))
		}
	case b.isTame(scale, zero):
		for i, v := range values {
			t[i] = tameBF16(v, zero, scale)
		}
	default:
		for i, v := range values {
			t[i] = scaledBF16(v, zero, scale)
		}
	}
}

// lookupNibbles takes 16 codes at a time, which are eight bytes.
func lookupNibbles(dst, codes []byte, t *[sixteen]uint16, c Coding) {
	var swapped [8]byte
	for len(codes) >= 8 {
		b, d := (*[8]byte)(codes), (*[32]byte)(dst)
		if c == HighNibbles {
			binary.LittleEndian.PutUint64(swapped[:], swapNibbles(binary.LittleEndian.Uint64(b[:])))
			b = &swapped
		}
		lookupByte(d[0:], b[0], t)
		lookupByte(d[4:], b[1], t)
		lookupByte(d[8:], b[2], t)
		lookupByte(d[12:], b[3], t)
		lookupByte(d[16:], b[4], t)
		lookupByte(d[20:], b[5], t)
		lookupByte(d[24:], b[6], t)
		lookupByte(d[28:], b[7], t)
		dst, codes = dst[32:], codes[8:]
	}
}

// lookupByte looks up the two codes of a byte.
func lookupByte(dst []byte, c byte, t *[sixteen]uint16) {
	binary.LittleEndian.PutUint32(dst, uint32(t[c&15])|uint32(t[c>>4])<<16)
}

// bytes returns len(buf) codes from code i, each in a byte. It uses buf if it must.
func (b *strip) bytes(buf, codes []byte, i int) []byte {
	switch b.coding {
	case Nibbles:
		unpackGeneric(buf, codes, i, 4, LowFirst)
	case HighNibbles:
		unpackGeneric(buf, codes, i, 4, HighFirst)
	default:
		return codes[i:][:len(buf)]
	}
	return buf
}

// columnsGeneric decodes with a scale and a zero point for each column. zeros may be nil. Codes of
// 4 bits are looked up in tables if enough rows share them.
func (s *scratch) columnsGeneric(b *strip, scales, zeros []float32) {
	if b.rows >= 2*sixteen && b.coding.tabled() && b.out != F32 {
		for c := 0; c < b.cols; c += tableCols {
			p := b.part(c, min(tableCols, b.cols-c))
			s.columnsByTable(&p, scales[c:], zeros[min(c, len(zeros)):])
		}
		return
	}
	for r := range b.rows {
		dst, codes := b.row(r)
		s.rowOfColumnsGeneric(dst, codes, b, 0, b.cols, scales, zeros)
	}
}

// tableCols is the number of columns that have tables at once.
const tableCols = maxTables * 256 / sixteen

// columnsByTable computes the 16 results of each column. There are at most tableCols columns.
func (s *scratch) columnsByTable(b *strip, scales, zeros []float32) {
	for c := range b.cols {
		var zero float32
		if len(zeros) > 0 {
			zero = zeros[c]
		}
		fillGeneric(s.words[sixteen*c:][:sixteen], b, scales[c], zero)
	}
	for r := range b.rows {
		dst, codes := b.row(r)
		lookupColumns(dst, b.bytes(s.codes[:b.cols], codes, b.skip), s.words[:])
	}
}

// lookupColumns looks each code up in a table of its own.
func lookupColumns(dst, codes []byte, words []uint16) {
	dst, words = dst[:2*len(codes)], words[:sixteen*len(codes)]
	i := 0
	for ; i+8 <= len(codes); i += 8 {
		c, d := (*[8]byte)(codes[i:]), (*[16]byte)(dst[2*i:])
		t := (*[8 * sixteen]uint16)(words[sixteen*i:])
		binary.LittleEndian.PutUint64(d[0:], uint64(t[c[0]&15])|uint64(t[16|c[1]&15])<<16|
			uint64(t[32|c[2]&15])<<32|uint64(t[48|c[3]&15])<<48)
		binary.LittleEndian.PutUint64(d[8:], uint64(t[64|c[4]&15])|uint64(t[80|c[5]&15])<<16|
			uint64(t[96|c[6]&15])<<32|uint64(t[112|c[7]&15])<<48)
	}
	for ; i < len(codes); i++ {
		binary.LittleEndian.PutUint16(dst[2*i:], words[sixteen*i:][codes[i]&15])
	}
}

// rowOfColumnsGeneric decodes the columns from begin to end, each with a scale and a zero point.
func (s *scratch) rowOfColumnsGeneric(dst, codes []byte, b *strip, begin, end int,
	scales, zeros []float32) {
	for c := begin; c < end; c += chunk {
		n := min(chunk, end-c)
		z := noZeros[:n]
		if zeros != nil {
			z = zeros[c:][:n]
		}
		each := b.bytes(s.codes[:n], codes, b.skip+c)
		multiply(dst[c*b.out.Size():], b.out, each, b.values, scales[c:][:n], z)
	}
}

// noZeros are zero points that change nothing.
var noZeros [chunk]float32

// multiply decodes a code of each byte.
func multiply(dst []byte, out Format, codes []byte, values *[256]float32, scales, zeros []float32) {
	dst, scales, zeros = dst[:out.Size()*len(codes)], scales[:len(codes)], zeros[:len(codes)]
	switch out {
	case F32:
		for i, c := range codes {
			binary.LittleEndian.PutUint32(dst[4*i:],
				math.Float32bits(scaled(values[c], zeros[i], scales[i])))
		}
	case F16:
		for i, c := range codes {
			binary.LittleEndian.PutUint16(dst[2*i:],
				RoundF16(scaled(values[c], zeros[i], scales[i])))
		}
	default:
		multiplyBF16(dst, codes, values, scales, zeros)
	}
}

// multiplyBF16 takes 4 codes at a time.
func multiplyBF16(dst, codes []byte, values *[256]float32, scales, zeros []float32) {
	i := 0
	for ; i+4 <= len(codes); i += 4 {
		c, d := (*[4]byte)(codes[i:]), (*[8]byte)(dst[2*i:])
		s, z := (*[4]float32)(scales[i:]), (*[4]float32)(zeros[i:])
		binary.LittleEndian.PutUint16(d[0:], scaledBF16(values[c[0]], z[0], s[0]))
		binary.LittleEndian.PutUint16(d[2:], scaledBF16(values[c[1]], z[1], s[1]))
		binary.LittleEndian.PutUint16(d[4:], scaledBF16(values[c[2]], z[2], s[2]))
		binary.LittleEndian.PutUint16(d[6:], scaledBF16(values[c[3]], z[3], s[3]))
	}
	for ; i < len(codes); i++ {
		binary.LittleEndian.PutUint16(dst[2*i:], scaledBF16(values[codes[i]], zeros[i], scales[i]))
	}
}
