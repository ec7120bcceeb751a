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

// looksUp reports whether a table of the results of a group takes less time than a multiplication
// for each code. All tables are of words.
func (b *strip) looksUp() bool {
	return b.out.Size() == 2 && (b.coding.paired() || min(b.width, b.cols) >= 512)
}

// rowOfGroupsGeneric decodes whole sixteens of codes by a table for each group. The first group has
// first columns, the others have the width of b.
func (s *scratch) rowOfGroupsGeneric(dst, codes []byte, b *strip, first int,
	scales, zeros []float32) {
	for i := 0; len(dst) > 0; i++ {
		n := min(first, len(dst)/2)
		var zero float32
		if zeros != nil {
			zero = zeros[i]
		}
		size := b.coding.size(0, n)
		if b.coding.paired() {
			t := (*[sixteen]uint16)(s.words[:])
			fillGeneric(t[:], b, scales[i], zero)
			lookupNibbles(dst[:2*n], codes[:size], t, b.coding)
		} else {
			t := (*[256]uint16)(s.words[:])
			fillGeneric(t[:], b, scales[i], zero)
			lookup(dst[:2*n], codes[:size], t)
		}
		dst, codes, first = dst[2*n:], codes[size:], b.width
	}
}

// fillGeneric computes the results of the first codes, as BF16 or F16.
func fillGeneric(t []uint16, b *strip, scale, zero float32) {
	values := b.values[:len(t)]
	if b.out == F16 {
		for i, v := range values {
			t[i] = RoundF16(scaled(v, zero, scale))
		}
		return
	}
	for i, v := range values {
		t[i] = scaledBF16(v, zero, scale)
	}
}

// lookupNibbles takes 16 codes at a time, which are eight bytes.
func lookupNibbles(dst, codes []byte, t *[sixteen]uint16, c Coding) {
	for len(codes) >= 8 {
		u, d := binary.LittleEndian.Uint64(codes), (*[32]byte)(dst)
		if c == HighNibbles {
			u = swapNibbles(u)
		}
		binary.LittleEndian.PutUint64(d[0:], uint64(t[u&15])|uint64(t[u>>4&15])<<16|
			uint64(t[u>>8&15])<<32|uint64(t[u>>12&15])<<48)
		binary.LittleEndian.PutUint64(d[8:], uint64(t[u>>16&15])|uint64(t[u>>20&15])<<16|
			uint64(t[u>>24&15])<<32|uint64(t[u>>28&15])<<48)
		binary.LittleEndian.PutUint64(d[16:], uint64(t[u>>32&15])|uint64(t[u>>36&15])<<16|
			uint64(t[u>>40&15])<<32|uint64(t[u>>44&15])<<48)
		binary.LittleEndian.PutUint64(d[24:], uint64(t[u>>48&15])|uint64(t[u>>52&15])<<16|
			uint64(t[u>>56&15])<<32|uint64(t[u>>60])<<48)
		dst, codes = dst[32:], codes[8:]
	}
}

// swapNibbles exchanges the two nibbles of each byte.
func swapNibbles(u uint64) uint64 {
	const low = 0x0f0f0f0f0f0f0f0f
	return u>>4&low | u&low<<4
}

// rowOfColumnsGeneric decodes the columns from begin to end, with a scale and a zero point for each.
// zeros may be nil.
func rowOfColumnsGeneric(dst, codes []byte, b *strip, begin, end int, scales, zeros []float32) {
	var buf [chunk]byte
	for c := begin; c < end; c += chunk {
		n := min(chunk, end-c)
		z := noZeros[:n]
		if zeros != nil {
			z = zeros[c:][:n]
		}
		each := buf[:n]
		if b.coding.paired() {
			expand(each, codes, b.skip+c, b.coding)
		} else {
			each = codes[c:][:n]
		}
		multiply(dst[c*b.out.Size():], b.out, each, b.values, scales[c:][:n], z)
	}
}

// noZeros are zero points that change nothing.
var noZeros [chunk]float32

// expand writes the codes from code i to a byte each.
func expand(dst, codes []byte, i int, c Coding) {
	order := LowFirst
	if c == HighNibbles {
		order = HighFirst
	}
	unpackGeneric(dst, codes, i, 4, order)
}

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
		for i, c := range codes {
			binary.LittleEndian.PutUint16(dst[2*i:], scaledBF16(values[c], zeros[i], scales[i]))
		}
	}
}
