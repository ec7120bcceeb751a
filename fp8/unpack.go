package fp8

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Order is the order of packed codes in a word.
type Order uint8

// The orders. Words are little-endian.
const (
	// LowFirst is one stream of fields, the least significant bit first. Fields may straddle words.
	LowFirst Order = iota
	// HighFirst is fields of 4 bits, the high nibble of each byte first.
	HighFirst
	// Interleaved is fields of 4 bits in words of 32. From the lowest nibble they are the codes 0,
	// 2, 4, 6, 1, 3, 5, 7 of a word. AWQ packs so.
	Interleaved
)

// Unpack writes len(dst) codes of a stream to dst, a byte each, from code number first. A code has
// 1 to 8 bits. Orders other than LowFirst have codes of 4 bits. It panics if src is too short.
func Unpack(dst, src []byte, first, bits int, order Order) {
	checkPack(bits, order)
	if n := PackedSize(first+len(dst), bits, order); first < 0 || n > len(src) {
		panic(fmt.Sprintf("fp8: codes: %d of %d bits from code %d need %d bytes, have %d",
			len(dst), bits, first, n, len(src)))
	}
	unpack(dst, src, first, bits, order)
}

// PackedSize returns the bytes from the beginning of a stream that hold its first n codes.
func PackedSize(n, bits int, order Order) int {
	if order == Interleaved {
		return ceilDiv(n, 8) * 4
	}
	return n/8*bits + ceilDiv(n%8*bits, 8)
}

func checkPack(bits int, order Order) {
	if bits < 1 || bits > 8 || order > Interleaved || order != LowFirst && bits != 4 {
		panic(fmt.Sprintf("fp8: codes of %d bits in order %d", bits, order))
	}
}

// unpackGeneric takes 8 codes at a time, which are bits bytes, where it can read 8 bytes.
func unpackGeneric(dst, src []byte, first, bits int, order Order) {
	if bits == 8 {
		copy(dst, src[first:])
		return
	}
	for len(dst) > 0 && first%8 != 0 {
		dst[0] = code(src, first, bits, order)
		dst, first = dst[1:], first+1
	}
	src = src[min(len(src), first/8*bits):]
	p := newSpreader(bits)
	for len(dst) >= 8 && len(src) >= 8 {
		u := binary.LittleEndian.Uint64(src)
		switch order {
		case HighFirst:
			u = swapNibbles(u)
		case Interleaved:
			u = deinterleave(u)
		}
		binary.LittleEndian.PutUint64(dst, p.spread(u))
		dst, src = dst[8:], src[bits:]
	}
	for i := range dst {
		dst[i] = code(src, i, bits, order)
	}
}

// spreader moves eight fields of the same width from the bottom of a word to a byte each. It moves
// every second four of them, then every second two, then every second one.
type spreader struct {
	shift     [3]int
	stay, new [3]uint64
}

func newSpreader(bits int) (p spreader) {
	for i := range p.shift {
		n := 4 >> i
		p.shift[i] = n * (8 - bits)
		p.stay[i] = (1<<(n*bits) - 1) * (math.MaxUint64 / (uint64(1)<<(16*n) - 1))
		p.new[i] = p.stay[i] << (8 * n)
	}
	return p
}

func (p *spreader) spread(u uint64) uint64 {
	u = u&p.stay[0] | u<<(p.shift[0]&63)&p.new[0]
	u = u&p.stay[1] | u<<(p.shift[1]&63)&p.new[1]
	return u&p.stay[2] | u<<(p.shift[2]&63)&p.new[2]
}

// swapNibbles exchanges the two nibbles of each byte.
func swapNibbles(u uint64) uint64 {
	const low = 0x0f0f0f0f0f0f0f0f
	return u>>4&low | u&low<<4
}

// deinterleave brings the nibbles of a word of 32 bits from the order of Interleaved to LowFirst.
func deinterleave(u uint64) uint64 {
	u = u&0xffff | u&0xffff0000<<16 // the even codes, and the odd ones
	u = (u | u<<8) & 0x00ff00ff00ff00ff
	u = (u | u<<4) & 0x0f0f0f0f0f0f0f0f
	return u | u>>28
}

// nibbleOf is the position in its word of each interleaved code.
var nibbleOf = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

// code returns code i of src.
func code(src []byte, i, bits int, order Order) byte {
	switch order {
	case HighFirst:
		i ^= 1
	case Interleaved:
		i = i&^7 | nibbleOf[i&7]
	}
	return field(src, i*bits, bits)
}

// field returns the bits of src from bit at.
func field(src []byte, at, bits int) byte {
	v := uint16(src[at/8])
	if at%8+bits > 8 {
		v |= uint16(src[at/8+1]) << 8
	}
	return byte(v >> (at % 8) & (1<<bits - 1))
}

// UnpackDown writes one row of codes whose fields run down the words of each column. Words have
// word bytes: 1 or 4. low holds the words with the first bit of the row's fields, which begin shift
// bits above the lowest. high holds the words below them, or nil if no field straddles. It panics
// if low or high is too short.
func UnpackDown(dst, low, high []byte, word, shift, bits int) {
	checkPack(bits, LowFirst)
	straddles := shift+bits > 8*word
	if word != 1 && word != 4 || shift < 0 || shift >= 8*word || len(low) < word*len(dst) ||
		straddles && len(high) < word*len(dst) {
		panic(fmt.Sprintf("fp8: %d codes of %d bits at bit %d of words of %d bytes in %d and %d",
			len(dst), bits, shift, word, len(low), len(high)))
	}
	if !straddles {
		high = nil
	}
	unpackDown(dst, low, high, word, shift, bits)
}

// unpackDownGeneric takes eight bytes of words at a time.
func unpackDownGeneric(dst, low, high []byte, word, shift, bits int) {
	mask := uint64(1)<<bits - 1
	if word == 1 {
		n := len(dst) &^ 7
		unpackDownBytes(dst[:n], low, high, shift, mask)
		dst, low, high = dst[n:], low[n:], high[min(n, len(high)):]
	}
	if word == 4 && high == nil {
		low = low[:4*len(dst)]
		for i := range dst {
			dst[i] = byte(binary.LittleEndian.Uint32(low[4*i:]) >> (shift & 31) & uint32(mask))
		}
		return
	}
	for i := range dst {
		v := packedWord(low, i, word)
		if high != nil {
			v |= packedWord(high, i, word) << (8 * word)
		}
		dst[i] = byte(v >> (shift & 63) & mask)
	}
}

// unpackDownBytes takes eight columns of words of a byte at a time.
func unpackDownBytes(dst, low, high []byte, shift int, mask uint64) {
	const each = 0x0101010101010101
	mask *= each
	lower, upper := uint64(0xff>>shift)*each, uint64(0xff<<(8-shift)&0xff)*each
	for i := 0; i < len(dst); i += 8 {
		v := binary.LittleEndian.Uint64(low[i:]) >> shift & lower
		if high != nil {
			v |= binary.LittleEndian.Uint64(high[i:]) << (8 - shift) & upper
		}
		binary.LittleEndian.PutUint64(dst[i:], v&mask)
	}
}

// packedWord returns word i of b.
func packedWord(b []byte, i, word int) uint64 {
	if word == 1 {
		return uint64(b[i])
	}
	return uint64(binary.LittleEndian.Uint32(b[4*i:]))
}
