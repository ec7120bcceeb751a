package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// unpackNibblesAVX2 spreads 16 bytes over 32 and then orders the codes within each eight.
func unpackNibblesAVX2() {
	declare("unpackNibblesAVX2", "(dst, src *byte, n int, order uint64)",
		"writes n codes of 4 bits to a byte each. n is a multiple of 32. The bytes of",
		"order are where each of eight codes is, from the lowest nibble.")
	dst, src, n, order := pointer("dst"), pointer("src"), pointer("n"), pointer("order")
	lower, upper, second := XMM(), XMM(), GP64()
	VMOVQ(order, lower)
	MOVQ(U64(0x0808080808080808), second)
	ADDQ(second, order)
	VMOVQ(order, upper)
	both := YMM()
	VPUNPCKLQDQ(upper, lower, both.AsX())
	VINSERTI128(U8(1), both.AsX(), both, both)
	nibble := dwordsY(0x0f0f0f0f)
	while("loop", n, func() {
		v, t := YMM(), YMM()
		VPMOVZXBW(at(src, 0), v)
		VPSLLW(U8(4), v, t)
		VPOR(t, v, v)
		VPAND(nibble, v, v)
		VPSHUFB(both, v, v)
		VMOVDQU(v, at(dst, 0))
		ADDQ(U8(16), src)
		ADDQ(U8(32), dst)
		SUBQ(U8(32), n)
	})
	VZEROUPPER()
	RET()
}

// unpackDownAVX2 shifts words, and packs them twice to bytes.
func unpackDownAVX2() {
	declare("unpackDownAVX2", "(dst, low, high *byte, n, shift, left, mask int)",
		"writes the codes of n columns of words of 4 bytes, a multiple of 32: the words",
		"of low shifted right, and those of high shifted left, under mask.")
	dst, low, high, n := pointer("dst"), pointer("low"), pointer("high"), pointer("n")
	right, left := XMM(), XMM()
	VMOVQ(pointer("shift"), right)
	VMOVQ(pointer("left"), left)
	mask, order := YMM(), YMM()
	VMOVQ(pointer("mask"), mask.AsX())
	VPBROADCASTD(mask.AsX(), mask)
	VPMOVZXBD(qword(0x0703060205010400), order)
	while("loop", n, func() {
		var w [4]VecVirtual
		for i := range w {
			w[i] = YMM()
			t := YMM()
			VMOVDQU(at(low, 32*i), w[i])
			VPSRLD(right, w[i], w[i])
			VMOVDQU(at(high, 32*i), t)
			VPSLLD(left, t, t)
			VPOR(t, w[i], w[i])
			VPAND(mask, w[i], w[i])
		}
		VPACKUSDW(w[1], w[0], w[0])
		VPACKUSDW(w[3], w[2], w[2])
		VPACKUSWB(w[2], w[0], w[0])
		VPERMD(w[0], order, w[0])
		VMOVDQU(w[0], at(dst, 0))
		ADDQ(I32(128), low)
		ADDQ(I32(128), high)
		ADDQ(U8(32), dst)
		SUBQ(U8(32), n)
	})
	VZEROUPPER()
	RET()
}
