package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	infinityF32 = 0x7f800000
	notSign     = 0x7fffffff
	max448      = 0x43e00000 // 448, the largest
	beyond464   = 0x43e80000 // 464, from above which 448 is not the nearest
	normal      = 0x3c800000 // 2^-6, the smallest normal
	step        = 0x46800000 // 2^14, whose last place is the step of the subnormals
	rebias      = 0x7ffff - 120<<23
)

func signature(name, parameters, doc string) {
	TEXT(name, NOSPLIT, "func("+parameters+")")
	Pragma("noescape")
	Doc(name + " " + doc)
}

const (
	maxAbsParameters   = "acc *uint32, src *byte, n int"
	quantizeParameters = "codes, src *byte, n int, scales *float32"
	maxAbsDoc          = "raises each of acc, the bits of float32s, to the magnitude of the value in its column, if that is finite"
	quantizeDoc        = "writes the codes of n values divided by their scales, and counts those that saturate"
)

func quantizeAVX512() {
	for _, from := range formats {
		maxAbsAVX512(from)
		quantizeRowAVX512(from)
	}
}

// loadAVX512 are 16 values as float32; with k the others are 0.
func loadAVX512(from string, m Mem, k Op) VecVirtual {
	v, h := ZMM(), YMM()
	switch {
	case from == "F32" && k == nil:
		VMOVDQU32(m, v)
	case from == "F32":
		VMOVDQU32_Z(m, k, v)
	case from == "F16" && k == nil:
		VCVTPH2PS(m, v)
	case from == "F16":
		VMOVDQU16_Z(m, k, h)
		VCVTPH2PS(h, v)
	case k == nil:
		VPMOVZXWD(m, v)
		VPSLLD(U8(16), v, v)
	default:
		VPMOVZXWD_Z(m, k, v)
		VPSLLD(U8(16), v, v)
	}
	return v
}

func maxAbsAVX512(from string) {
	signature("maxAbs"+from+"AVX512", maxAbsParameters, maxAbsDoc+".")
	acc, src, n := pointer("acc"), pointer("src"), pointer("n")
	magnitude, infinity := dwords(notSign), dwords(infinityF32)
	body := func(k Op) {
		v, a, finite := loadAVX512(from, at(src, 0), k), ZMM(), K()
		VPANDD(magnitude, v, v)
		VPCMPUD(U8(1), infinity, v, finite) // less
		if k == nil {
			VMOVDQU32(at(acc, 0), a)
		} else {
			VMOVDQU32_Z(at(acc, 0), k, a)
		}
		VPMAXUD(v, a, finite, a)
		if k == nil {
			VMOVDQU32(a, at(acc, 0))
		} else {
			VMOVDQU32(a, k, at(acc, 0))
		}
	}
	Label("loop")
	CMPQ(n, U8(16))
	JLT(LabelRef("tail"))
	body(nil)
	ADDQ(U8(16*size(from)), src)
	ADDQ(U8(64), acc)
	SUBQ(U8(16), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body(mask(n))
	Label("done")
	VZEROUPPER()
	RET()
}

func quantizeRowAVX512(from string) {
	name := "quantizeRow" + from + "AVX512"
	TEXT(name, NOSPLIT, "func("+quantizeParameters+") (saturated int)")
	Pragma("noescape")
	Doc(name + " " + quantizeDoc + ".")
	codes, src, n, scales := pointer("codes"), pointer("src"), pointer("n"), pointer("scales")
	q := newQuantizerAVX512()
	count, some := GP64(), GP64()
	XORQ(count, count)
	Label("loop")
	CMPQ(n, U8(16))
	JLT(LabelRef("tail"))
	v := loadAVX512(from, at(src, 0), nil)
	VDIVPS(at(scales, 0), v, v)
	c, beyond := q.codes(v)
	VPMOVDB(c, at(codes, 0))
	KMOVW(beyond, some.As32())
	POPCNTQ(some, some)
	ADDQ(some, count)
	ADDQ(U8(16), codes)
	ADDQ(U8(16*size(from)), src)
	ADDQ(U8(64), scales)
	SUBQ(U8(16), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	k, s := mask(n), ZMM()
	v = loadAVX512(from, at(src, 0), k)
	VMOVDQU32_Z(at(scales, 0), k, s)
	VDIVPS_Z(s, v, k, v)
	c, beyond = q.codes(v)
	VPMOVDB(c, k, at(codes, 0))
	KMOVW(beyond, some.As32())
	POPCNTQ(some, some)
	ADDQ(some, count)
	Label("done")
	VZEROUPPER()
	Store(count, ReturnIndex(0))
	RET()
}

type quantizerAVX512 struct {
	magnitude, infinity, most, beyond, normal, step, rebias, one, nan, sign VecVirtual
}

func newQuantizerAVX512() *quantizerAVX512 {
	return &quantizerAVX512{dwords(notSign), dwords(infinityF32), dwords(max448), dwords(beyond464), dwords(normal), dwords(step),
		dwords(uint32(rebias & 0xffffffff)), dwords(1), dwords(0x7f), dwords(0x80)}
}

// codes are those of the 16 quotients of v, and which are too large.
func (q *quantizerAVX512) codes(v VecVirtual) (c VecVirtual, beyond OpmaskVirtual) {
	u, odd, sub := ZMM(), ZMM(), ZMM()
	nan, small := K(), K()
	beyond = K()
	VPANDD(q.magnitude, v, u)
	VPCMPUD(U8(6), q.infinity, u, nan) // greater
	VPCMPUD(U8(6), q.beyond, u, beyond)
	KANDNW(beyond, nan, beyond)
	VPMINUD(q.most, u, u)
	VPCMPUD(U8(1), q.normal, u, small)
	VADDPS(q.step, u, sub)
	VPSUBD(q.step, sub, sub)
	VPSRLD(U8(20), u, odd)
	VPANDD(q.one, odd, odd)
	VPADDD(q.rebias, u, u)
	VPADDD(odd, u, u)
	VPSRLD(U8(20), u, u)
	VMOVDQA32(sub, small, u)
	VMOVDQA32(q.nan, nan, u)
	VPSRLD(U8(24), v, v)
	VPTERNLOGD(U8(0xf8), q.sign, v, u) // u | v&sign
	return u, beyond
}

func quantizeAVX2() {
	for _, from := range formats {
		maxAbsAVX2(from)
		quantizeRowAVX2(from)
	}
}

func loadAVX2(from string, m Mem) VecVirtual {
	v := YMM()
	switch from {
	case "F32":
		VMOVDQU(m, v)
	case "F16":
		VCVTPH2PS(m, v)
	default:
		VPMOVZXWD(m, v)
		VPSLLD(U8(16), v, v)
	}
	return v
}

func maxAbsAVX2(from string) {
	signature("maxAbs"+from+"AVX2", maxAbsParameters, maxAbsDoc+"; n is a multiple of 8.")
	acc, src, n := pointer("acc"), pointer("src"), pointer("n")
	magnitude, infinity := dwordsY(notSign), dwordsY(infinityF32)
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	v, finite := loadAVX2(from, at(src, 0)), YMM()
	VPAND(magnitude, v, v)
	VPCMPGTD(v, infinity, finite)
	VPAND(finite, v, v)
	VPMAXUD(at(acc, 0), v, v)
	VMOVDQU(v, at(acc, 0))
	ADDQ(U8(8*size(from)), src)
	ADDQ(U8(32), acc)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

func quantizeRowAVX2(from string) {
	name := "quantizeRow" + from + "AVX2"
	TEXT(name, NOSPLIT, "func("+quantizeParameters+") (saturated int)")
	Pragma("noescape")
	Doc(name + " " + quantizeDoc + "; n is a multiple of 8.")
	codes, src, n, scales := pointer("codes"), pointer("src"), pointer("n"), pointer("scales")
	magnitude, infinity, most, beyond, small := dwordsY(notSign), dwordsY(infinityF32), dwordsY(max448), dwordsY(beyond464), dwordsY(normal)
	half, bias, one, quiet, sign := dwordsY(step), dwordsY(uint32(rebias&0xffffffff)), dwordsY(1), dwordsY(0x7f), dwordsY(0x80)
	count, some := GP64(), GP64()
	XORQ(count, count)
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	v := loadAVX2(from, at(src, 0))
	VDIVPS(at(scales, 0), v, v)
	u, t, w := YMM(), YMM(), YMM()
	VPAND(magnitude, v, u)
	VPCMPGTD(beyond, u, t)
	VPCMPGTD(infinity, u, w)
	VPANDN(t, w, t)
	VMOVMSKPS(t, some.As32())
	POPCNTQ(some, some)
	ADDQ(some, count)
	VPMINUD(most, u, u)
	normal := YMM()
	VPSRLD(U8(20), u, normal)
	VPAND(one, normal, normal)
	VPADDD(bias, normal, normal)
	VPADDD(u, normal, normal)
	VPSRLD(U8(20), normal, normal)
	VPCMPGTD(u, small, t)
	VADDPS(half, u, u)
	VPSUBD(half, u, u)
	VPBLENDVB(t, u, normal, u)
	VPBLENDVB(w, quiet, u, u)
	VPSRLD(U8(24), v, v)
	VPAND(sign, v, v)
	VPOR(v, u, u)
	VPACKUSDW(u, u, u)
	VPERMQ(U8(0x08), u, u)
	VPACKUSWB(u.AsX(), u.AsX(), u.AsX())
	VMOVQ(u.AsX(), at(codes, 0))
	ADDQ(U8(8), codes)
	ADDQ(U8(8*size(from)), src)
	ADDQ(U8(32), scales)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	Store(count, ReturnIndex(0))
	RET()
}
