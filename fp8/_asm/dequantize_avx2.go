package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const rowByEightsSignature = "(dst, codes *byte, n, first, width int, eights *[32]byte)"

const fillEightsSignature = "(eights *[32]byte, scales *float32, n int, values *float32)"

var fillEightsDoc = []string{
	"writes 32 bytes for each of n scales: the low bytes of 16 words, then the",
	"high bytes. The words are the results of the codes 8 to 15, less their exponent,",
	"and of 0 to 7.",
}

var rowByEightsDoc = []string{
	"decodes n E4M3FN codes to BF16 by the eights of their blocks. The first",
	"block has first columns, the others have width.",
}

func dequantizeAVX2() {
	fillEightsAVX2()
	rowByEightsAVX2()
	for _, out := range formats {
		rowByColumnAVX2(out)
	}
}

// fillEightsAVX2 rounds the products of codes 8 to 15 and of codes 0 to 7. It subtracts the
// exponent of the former and separates the bytes.
func fillEightsAVX2() {
	declare("fillEightsAVX2", fillEightsSignature, fillEightsDoc...)
	eights, scales := pointer("eights"), pointer("scales")
	n, values := pointer("n"), pointer("values")
	r := newRounderAVX2("BF16")
	low, exponent := dwordsY(0x00ff00ff), dwordsY(1<<7)
	s := YMM()
	while("scale", n, func() {
		VBROADCASTSS(at(scales, 0), s)
		w := [2]VecVirtual{YMM(), YMM()}
		for i, first := range []int{8, 0} {
			VMULPS(at(values, 4*first), s, w[i])
			r.words(w[i])
		}
		VPSUBD(exponent, w[0], w[0])
		VPACKUSDW(w[1], w[0], w[0])
		VPERMQ(U8(0xd8), w[0], w[0])
		VPSRLW(U8(8), w[0], w[1])
		VPAND(low, w[0], w[0])
		VPACKUSWB(w[1], w[0], w[0])
		VPERMQ(U8(0xd8), w[0], w[0])
		VMOVDQU(w[0], at(eights, 0))
		ADDQ(U8(32), eights)
		ADDQ(U8(4), scales)
		DECQ(n)
	})
	VZEROUPPER()
	RET()
}

// rowByEightsAVX2 uses that rounding commutes with powers of two while nothing overflows or is
// subnormal. So it needs only the rounded products of the eight significands of E4M3FN and the
// scale. It adds the exponent of the code to that of the product. The eight subnormal codes have
// eight words more. The 16 words are two registers for VPSHUFB, one of low and one of high bytes.
func rowByEightsAVX2() {
	declare("rowByEightsAVX2", rowByEightsSignature, rowByEightsDoc...)
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	first, width, eights := pointer("first"), pointer("width"), pointer("eights")
	e := newEightsAVX2()
	left, last, base := GP64(), GP64(), GP64()
	while("block", n, func() {
		VBROADCASTI128(at(eights, 0), e.low)
		VBROADCASTI128(at(eights, 16), e.high)
		minimum(left, first, n)
		SUBQ(left, n)
		// The result of the code at p is at base + 2p.
		MOVQ(dst, base)
		SUBQ(codes, base)
		SUBQ(codes, base)
		LEAQ(indexed(dst, left, 2, 0), dst)
		LEAQ(indexed(codes, left, 1, -32), last)
		CMPQ(left, U8(32))
		JLT(LabelRef("scalar"))
		e.decodeBlock(codes, base, last)

		Label("scalar")
		e.decode1(codes, base, eights)
		INCQ(codes)
		DECQ(left)
		JNZ(LabelRef("scalar"))

		Label("next")
		ADDQ(U8(32), eights)
		MOVQ(width, first)
	})
	VZEROUPPER()
	RET()
}

// decodeBlock decodes 32 or more codes at p. last is the address of the last 32. It continues at
// "next".
func (e *eightsAVX2) decodeBlock(p, base, last GPVirtual) {
	Label("loop")
	PREFETCHT0(at(p, ahead))
	e.decode32(p, base)
	ADDQ(U8(32), p)
	CMPQ(p, last)
	JLS(LabelRef("loop"))
	ADDQ(U8(32), last)
	CMPQ(p, last)
	JEQ(LabelRef("next"))
	SUBQ(U8(32), last) // the last 32 again, as a whole
	MOVQ(last, p)
	JMP(LabelRef("loop"))
}

type eightsAVX2 struct {
	low, high                                            VecVirtual
	significand, exponent, subnormal, sign, zero, allSet VecVirtual
}

func newEightsAVX2() *eightsAVX2 {
	e := &eightsAVX2{low: YMM(), high: YMM(), zero: YMM(), allSet: YMM()}
	e.significand, e.exponent = dwordsY(0x07070707), dwordsY(0x78787878)
	e.subnormal, e.sign = dwordsY(0x08080808), dwordsY(0x80808080)
	VPXOR(e.zero, e.zero, e.zero)
	VPCMPEQB(e.allSet, e.allSet, e.allSet)
	return e
}

// decode32 decodes the 32 codes at p to base + 2p.
func (e *eightsAVX2) decode32(p, base GPVirtual) {
	c, i, x, t := YMM(), YMM(), YMM(), YMM()
	VPERMQ(U8(0xd8), at(p, 0), c) // unpacking works within halves; this keeps the order
	VPAND(e.exponent, c, x)
	VPCMPEQB(e.zero, x, i)
	VPAND(e.subnormal, i, i)
	VPAND(e.significand, c, t)
	VPOR(t, i, i)
	low, high := YMM(), YMM()
	VPSHUFB(i, e.low, low)
	VPSHUFB(i, e.high, high)
	VPAND(e.sign, c, t)
	VPXOR(t, high, high)
	w := [2]VecVirtual{YMM(), YMM()}
	VPUNPCKLBW(high, low, w[0])
	VPUNPCKHBW(high, low, w[1])
	ex := [2]VecVirtual{YMM(), YMM()}
	VPUNPCKLBW(e.zero, x, ex[0])
	VPUNPCKHBW(e.zero, x, ex[1])
	for j := range w {
		VPSLLW(U8(4), ex[j], ex[j])
		VPADDW(ex[j], w[j], w[j])
	}
	e.quieten(c, t, w)
	VMOVDQU(w[0], indexed(base, p, 2, 0))
	VMOVDQU(w[1], indexed(base, p, 2, 32))
}

// quieten replaces the words of the NaNs among the codes c by the quiet NaN with their sign.
func (e *eightsAVX2) quieten(c, sign VecVirtual, w [2]VecVirtual) {
	nan, any := YMM(), GP32()
	VPOR(e.sign, c, nan)
	VPCMPEQB(e.allSet, nan, nan)
	VPMOVMSKB(nan, any)
	TESTL(any, any)
	JZ(LabelRef("store"))
	quiet := dwordsY(quietBF16 | quietBF16<<16)
	m, q := YMM(), YMM()
	for j, unpack := range []func(...Op){VPUNPCKLBW, VPUNPCKHBW} {
		unpack(nan, nan, m)
		unpack(sign, e.zero, q)
		VPOR(quiet, q, q)
		VPBLENDVB(m, q, w[j], w[j])
	}
	Label("store")
}

// decode1 decodes the code at p to base + 2p.
func (e *eightsAVX2) decode1(p, base, eights GPVirtual) {
	c, i, x, w, t := GP32(), GP32(), GP32(), GP32(), GP32()
	MOVBLZX(at(p, 0), c)
	MOVL(c, i)
	ANDL(U8(7), i)
	MOVL(c, x)
	ANDL(U8(0x78), x)
	JNZ(LabelRef("normal"))
	ADDL(U8(8), i)
	Label("normal")
	MOVBLZX(indexed(eights, i.As64(), 1, 0), w)
	MOVBLZX(indexed(eights, i.As64(), 1, 16), t)
	SHLL(U8(8), t)
	ORL(t, w)
	SHLL(U8(4), x)
	ADDL(x, w)
	MOVL(c, t)
	ANDL(U8(0x7f), t)
	CMPL(t, U8(0x7f))
	JNE(LabelRef("number"))
	MOVL(U32(quietBF16), w)
	Label("number")
	ANDL(U32(0x80), c)
	SHLL(U8(8), c)
	XORL(c, w)
	MOVW(w.As16(), indexed(base, p, 2, 0))
}

// rowByColumnAVX2 treats the codes as F16s. E5M2 is the upper half of an F16. E4M3FN, shifted one
// bit down, is an F16 that is 256 times too small.
func rowByColumnAVX2(out string) {
	declare("rowByColumn"+out+"AVX2",
		"(dst, codes *byte, n int, scales *float32, format *[4]uint32)",
		"multiplies n codes, a multiple of 8, by as many scales. format has the",
		"shift to F16 (as two words), the magnitude that is NaN (twice), and the bits of the",
		"factor that follows.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	scales, format := pointer("scales"), pointer("format")
	r := newRounderAVX2(out)
	shift, magnitude, nan, infinite, bias := XMM(), XMM(), XMM(), XMM(), YMM()
	VMOVQ(at(format, 0), shift)
	VPBROADCASTD(at(format, 8), nan)
	VBROADCASTSS(at(format, 12), bias)
	VMOVDQA(dwordsY(0x007f007f).AsX(), magnitude)
	VMOVDQA(dwordsY(0x7c007c00).AsX(), infinite)
	sign := dwordsY(signF32)
	while("loop", n, func() {
		h, t, v, s := XMM(), XMM(), YMM(), YMM()
		VPMOVZXBW(at(codes, 0), h)
		VPAND(magnitude, h, h)
		VPCMPEQW(nan, h, t)
		VPAND(infinite, t, t)
		VPSLLW(shift, h, h)
		VPOR(t, h, h)
		VCVTPH2PS(h, v)
		VMULPS(bias, v, v)
		VMULPS(at(scales, 0), v, v)
		r.quieten(v)
		VPMOVSXBD(at(codes, 0), s)
		VPAND(sign, s, s)
		VPXOR(s, v, v)
		r.store(v, at(dst, 0))
		ADDQ(U8(8), codes)
		ADDQ(U8(32), scales)
		ADDQ(U8(8*size(out)), dst)
		SUBQ(U8(8), n)
	})
	VZEROUPPER()
	RET()
}

type rounderAVX2 struct {
	out              string
	quiet, half, one VecVirtual
}

func newRounderAVX2(out string) *rounderAVX2 {
	r := &rounderAVX2{out: out, quiet: dwordsY(quietF32)}
	if out == "BF16" {
		r.half, r.one = dwordsY(0x7fff), dwordsY(1)
	}
	return r
}

// quieten replaces the NaNs in v by the quiet NaN.
func (r *rounderAVX2) quieten(v VecVirtual) {
	m := YMM()
	VCMPPS(U8(3), v, v, m) // unordered
	VBLENDVPS(m, r.quiet, v, v)
}

// store rounds the eight values of v and stores them.
func (r *rounderAVX2) store(v VecVirtual, m Mem) {
	switch r.out {
	case "F32":
		VMOVUPS(v, m)
	case "F16":
		VCVTPS2PH(U8(0), v, m) // to nearest even
	case "BF16":
		r.words(v)
		VPACKUSDW(v, v, v)
		VPERMQ(U8(0x08), v, v)
		VMOVDQU(v.AsX(), m)
	}
}

// words rounds v to BF16, each in the lower half of its dword.
func (r *rounderAVX2) words(v VecVirtual) {
	r.upperWords(v)
	VPSRLD(U8(16), v, v)
}

// upperWords rounds v to BF16, each in the upper half of its dword. The lower half is undefined.
func (r *rounderAVX2) upperWords(v VecVirtual) {
	odd := YMM()
	VPSRLD(U8(16), v, odd)
	VPAND(r.one, odd, odd)
	VPADDD(r.half, v, v)
	VPADDD(odd, v, v)
}
