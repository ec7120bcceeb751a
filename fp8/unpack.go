package fp8

import (
	"encoding/binary"
	"fmt"
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
	unpackGeneric(dst, src, first, bits, order)
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

// nibbleOf is the position in its word of each interleaved code.
var nibbleOf = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

func unpackGeneric(dst, src []byte, first, bits int, order Order) {
	for i := range dst {
		n := first + i
		switch {
		case order == HighFirst:
			n ^= 1
		case order == Interleaved:
			n = n&^7 | nibbleOf[n&7]
		}
		dst[i] = field(src, n*bits, bits)
	}
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
	unpackDownGeneric(dst, low, high, word, shift, bits)
}

func unpackDownGeneric(dst, low, high []byte, word, shift, bits int) {
	for i := range dst {
		v := packedWord(low, i, word)
		if high != nil {
			v |= packedWord(high, i, word) << (8 * word)
		}
		dst[i] = byte(v >> shift & (1<<bits - 1))
	}
}

// packedWord returns word i of b.
func packedWord(b []byte, i, word int) uint64 {
	if word == 1 {
		return uint64(b[i])
	}
	return uint64(binary.LittleEndian.Uint32(b[4*i:]))
}
