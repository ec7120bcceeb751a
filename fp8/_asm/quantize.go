package main

import (
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	infinityF32 = 0x7f800000
	notSign     = 0x7fffffff
	max448      = 0x43e00000 // 448, the largest
	beyond464   = 0x43e80000 // 464, above which 448 is not the nearest
	normal      = 0x3c800000 // 2^-6, the smallest normal
	step        = 0x46800000 // 2^14, whose last place is the step of the subnormals
	rebias      = 0x7ffff - 120<<23
)

const (
	maxAbsSignature   = "(acc *uint32, src *byte, n int)"
	quantizeSignature = "(codes, src *byte, n int, scales *float32) (saturated int)"
)

var (
	maxAbsDoc = []string{
		"raises each element of acc to the magnitude of the value in its column, if",
		"that is finite. acc has the bits of float32s.",
	}
	quantizeDoc = []string{
		"writes the codes of n values divided by their scales, and returns how",
		"many saturate.",
	}
	multipleOf8 = []string{"n is a multiple of 8."}
)

func quantizeAVX512() {
	for _, from := range formats {
		maxAbsAVX512(from)
		quantizeRowAVX512(from)
	}
}

// loadAVX512 returns 16 values as float32. With k, the values that are not in k are 0.
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
	declare("maxAbs"+from+"AVX512", maxAbsSignature, maxAbsDoc...)
	acc, src, n := pointer("acc"), pointer("src"), pointer("n")
	magnitude, infinity := dwords(notSign), dwords(infinityF32)
	each16(n, func(k Op) {
		v, a, finite := loadAVX512(from, at(src, 0), k), ZMM(), K()
		VPANDD(magnitude, v, v)
		VPCMPUD(U8(1), infinity, v, finite) // less
		if k == nil {
			VMOVDQU32(at(acc, 0), a)
			VPMAXUD(v, a, finite, a)
			VMOVDQU32(a, at(acc, 0))
		} else {
			VMOVDQU32_Z(at(acc, 0), k, a)
			VPMAXUD(v, a, finite, a)
			VMOVDQU32(a, k, at(acc, 0))
		}
	}, func() {
		ADDQ(U8(16*size(from)), src)
		ADDQ(U8(64), acc)
	})
	RET()
}

func quantizeRowAVX512(from string) {
	declare("quantizeRow"+from+"AVX512", quantizeSignature, quantizeDoc...)
	codes, src, n, scales := pointer("codes"), pointer("src"), pointer("n"), pointer("scales")
	q := newQuantizer(dwords)
	count, some := GP64(), GP64()
	XORQ(count, count)
	each16(n, func(k Op) {
		v := q.quotients(from, src, scales, k)
		c, beyond := q.codes16(v)
		if k == nil {
			VPMOVDB(c, at(codes, 0))
		} else {
			VPMOVDB(c, k, at(codes, 0))
		}
		KMOVW(beyond, some.As32())
		POPCNTQ(some, some)
		ADDQ(some, count)
	}, func() {
		ADDQ(U8(16), codes)
		ADDQ(U8(16*size(from)), src)
		ADDQ(U8(64), scales)
	})
	Store(count, ReturnIndex(0))
	RET()
}

// quotients returns 16 values divided by their scales. With k, the others are 0.
func (q *quantizer) quotients(from string, src, scales GPVirtual, k Op) VecVirtual {
	if k == nil {
		v := loadAVX512(from, at(src, 0), nil)
		VDIVPS(at(scales, 0), v, v)
		return v
	}
	s := ZMM()
	v := loadAVX512(from, at(src, 0), k)
	VMOVDQU32_Z(at(scales, 0), k, s)
	VDIVPS_Z(s, v, k, v)
	return v
}

// quantizer holds the constants of quantizing, in each dword of a register.
type quantizer struct {
	magnitude, infinity, most, beyond, normal, step, rebias, one, nan, sign VecVirtual
}

func newQuantizer(dwords func(uint32) VecVirtual) *quantizer {
	return &quantizer{
		dwords(notSign), dwords(infinityF32), dwords(max448), dwords(beyond464), dwords(normal),
		dwords(step), dwords(uint32(rebias & 0xffffffff)), dwords(1), dwords(0x7f), dwords(0x80),
	}
}

// codes16 returns the codes of the 16 quotients in v, and which of them are too large.
func (q *quantizer) codes16(v VecVirtual) (c VecVirtual, beyond OpmaskVirtual) {
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
	declare("maxAbs"+from+"AVX2", maxAbsSignature, slices.Concat(maxAbsDoc, multipleOf8)...)
	acc, src, n := pointer("acc"), pointer("src"), pointer("n")
	magnitude, infinity := dwordsY(notSign), dwordsY(infinityF32)
	while("loop", n, func() {
		v, finite := loadAVX2(from, at(src, 0)), YMM()
		VPAND(magnitude, v, v)
		VPCMPGTD(v, infinity, finite)
		VPAND(finite, v, v)
		VPMAXUD(at(acc, 0), v, v)
		VMOVDQU(v, at(acc, 0))
		ADDQ(U8(8*size(from)), src)
		ADDQ(U8(32), acc)
		SUBQ(U8(8), n)
	})
	VZEROUPPER()
	RET()
}

func quantizeRowAVX2(from string) {
	declare("quantizeRow"+from+"AVX2", quantizeSignature,
		slices.Concat(quantizeDoc, multipleOf8)...)
	codes, src, n, scales := pointer("codes"), pointer("src"), pointer("n"), pointer("scales")
	q := newQuantizer(dwordsY)
	count, some := GP64(), GP64()
	XORQ(count, count)
	while("loop", n, func() {
		v := loadAVX2(from, at(src, 0))
		VDIVPS(at(scales, 0), v, v)
		u := q.codes8(v, count, some)
		VPACKUSDW(u, u, u)
		VPERMQ(U8(0x08), u, u)
		VPACKUSWB(u.AsX(), u.AsX(), u.AsX())
		VMOVQ(u.AsX(), at(codes, 0))
		ADDQ(U8(8), codes)
		ADDQ(U8(8*size(from)), src)
		ADDQ(U8(32), scales)
		SUBQ(U8(8), n)
	})
	VZEROUPPER()
	Store(count, ReturnIndex(0))
	RET()
}

// codes8 returns the codes of the 8 quotients in v. It adds the number of those that are too large
// to count.
func (q *quantizer) codes8(v VecVirtual, count, some GPVirtual) VecVirtual {
	u, t, w := YMM(), YMM(), YMM()
	VPAND(q.magnitude, v, u)
	VPCMPGTD(q.beyond, u, t)
	VPCMPGTD(q.infinity, u, w)
	VPANDN(t, w, t)
	VMOVMSKPS(t, some.As32())
	POPCNTQ(some, some)
	ADDQ(some, count)
	VPMINUD(q.most, u, u)
	normal := YMM()
	VPSRLD(U8(20), u, normal)
	VPAND(q.one, normal, normal)
	VPADDD(q.rebias, normal, normal)
	VPADDD(u, normal, normal)
	VPSRLD(U8(20), normal, normal)
	VPCMPGTD(u, q.normal, t)
	VADDPS(q.step, u, u)
	VPSUBD(q.step, u, u)
	VPBLENDVB(t, u, normal, u)
	VPBLENDVB(w, q.nan, u, u)
	VPSRLD(U8(24), v, v)
	VPAND(q.sign, v, v)
	VPOR(v, u, u)
	return u
}
