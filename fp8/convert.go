package fp8

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Convert converts n elements between BF16, F16 and F32, rounding to nearest even; to its own format it copies.
// BF16 to F16 goes through F32, exactly. dst and src must not overlap.
func Convert(dst []byte, to Format, src []byte, from Format, n int) {
	if !isPlain(to) || !isPlain(from) {
		panic(fmt.Sprintf("fp8: cannot convert %v to %v", from, to))
	}
	if n < 0 || n > len(dst)/to.Size() || n > len(src)/from.Size() {
		panic(fmt.Sprintf("fp8: cannot convert %d elements: %d bytes of %v to %d bytes of %v", n, len(src), from, len(dst), to))
	}
	dst, src = dst[:n*to.Size()], src[:n*from.Size()]
	checkApart(dst, src)
	if to == from {
		copy(dst, src)
		return
	}
	converters[[2]Format{from, to}](dst, src)
}

func isPlain(f Format) bool { return f == BF16 || f == F16 || f == F32 }

var converters = map[[2]Format]func(dst, src []byte){
	{F32, BF16}: func(dst, src []byte) { narrow(dst, src, RoundBF16) },
	{F32, F16}:  func(dst, src []byte) { narrow(dst, src, RoundF16) },
	{BF16, F32}: func(dst, src []byte) { widen(dst, src, FromBF16) },
	{F16, F32}:  func(dst, src []byte) { widen(dst, src, FromF16) },
	{BF16, F16}: func(dst, src []byte) { same(dst, src, func(h uint16) uint16 { return RoundF16(FromBF16(h)) }) },
	{F16, BF16}: func(dst, src []byte) { same(dst, src, func(h uint16) uint16 { return RoundBF16(FromF16(h)) }) },
}

func narrow(dst, src []byte, round func(float32) uint16) {
	for ; len(src) >= 4 && len(dst) >= 2; dst, src = dst[2:], src[4:] {
		binary.LittleEndian.PutUint16(dst, round(math.Float32frombits(binary.LittleEndian.Uint32(src))))
	}
}

func widen(dst, src []byte, from func(uint16) float32) {
	for ; len(src) >= 2 && len(dst) >= 4; dst, src = dst[4:], src[2:] {
		binary.LittleEndian.PutUint32(dst, math.Float32bits(from(binary.LittleEndian.Uint16(src))))
	}
}

func same(dst, src []byte, f func(uint16) uint16) {
	for ; len(src) >= 2 && len(dst) >= 2; dst, src = dst[2:], src[2:] {
		binary.LittleEndian.PutUint16(dst, f(binary.LittleEndian.Uint16(src)))
	}
}
