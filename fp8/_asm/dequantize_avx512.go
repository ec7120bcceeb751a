package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func dequantizeAVX512() {
	fillTablesAVX512("BF16")
	fillTablesAVX512("F16")
	rowByTableAVX512()
	fillEightsAVX512()
	rowByEightsAVX512()
	for _, out := range formats {
		rowByColumnAVX512(out)
	}
}

// fillTablesAVX512 multiplies the 128 magnitudes by each of n scales.
func fillTablesAVX512(out string) {
	declare("fillTables"+out+"AVX512",
		"(tables *uint16, scales *float32, n int, values *float32)",
		"writes 128 words for each of n scales: the products of the scale and the",
		"magnitudes in values.")
	tables, scales := pointer("tables"), pointer("scales")
	n, values := pointer("n"), pointer("values")
	r := newRounderAVX512(out)
	scale := ZMM()
	while("table", n, func() {
		VBROADCASTSS(at(scales, 0), scale)
		for i := 0; i < 128; i += 16 {
			v := ZMM()
			VMULPS(at(values, 4*i), scale, v)
			r.quieten(v)
			r.store(v, at(tables, 2*i), nil)
		}
		ADDQ(U32(256), tables)
		ADDQ(U8(4), scales)
		DECQ(n)
	})
	VZEROUPPER()
	RET()
}

// rounderAVX512 converts float32s to an output format.
type rounderAVX512 struct {
	out              string
	quiet, half, one VecVirtual
}

func newRounderAVX512(out string) *rounderAVX512 {
	r := &rounderAVX512{out: out, quiet: dwords(quietF32)}
	if out == "BF16" {
		r.half, r.one = dwords(0x7fff), dwords(1)
	}
	return r
}

// quieten replaces the NaNs in v by the quiet NaN.
func (r *rounderAVX512) quieten(v VecVirtual) {
	k := K()
	VCMPPS(U8(3), v, v, k) // unordered
	VMOVDQA32(r.quiet, k, v)
}

// store rounds the 16 values of v and stores them. If k is not nil, it stores only those in k.
func (r *rounderAVX512) store(v VecVirtual, m Mem, k Op) {
	operands := func(ops ...Op) []Op {
		if k != nil {
			ops = append(ops[:len(ops)-1], k, ops[len(ops)-1])
		}
		return ops
	}
	switch r.out {
	case "F32":
		VMOVDQU32(operands(v, m)...)
	case "F16":
		VCVTPS2PH(operands(U8(0), v, m)...) // to nearest even
	case "BF16":
		r.words(v)
		VPMOVDW(operands(v, m)...)
	}
}

// words rounds v to BF16, each in the lower half of its dword.
func (r *rounderAVX512) words(v VecVirtual) {
	r.upperWords(v)
	VPSRLD(U8(16), v, v)
}

// upperWords rounds v to BF16, each in the upper half of its dword. The lower half is undefined.
func (r *rounderAVX512) upperWords(v VecVirtual) {
	odd := ZMM()
	VPSRLD(U8(16), v, odd)
	VPANDD(r.one, odd, odd)
	VPADDD(r.half, v, v)
	VPADDD(odd, v, v)
}

// rowByTableAVX512 looks the magnitude of each code up in the 128 words of its block, in four
// registers. One VPERMI2W searches two registers, which are 64 words. Bit 6 of the code selects the
// pair. The sign is added afterwards.
func rowByTableAVX512() {
	declare("rowByTableAVX512", "(dst, codes *byte, n, first, width int, tables *uint16)",
		"looks n codes up in the tables of their blocks, of 128 words each. The",
		"first block has first columns, the others have width.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	first, width, tables := pointer("first"), pointer("width"), pointer("tables")
	l := lookupAVX512{upper: words(0x40), sign: words(0x8000)}
	left, step := GP64(), GP64()
	while("block", n, func() {
		l.load(tables)
		minimum(left, first, n)
		SUBQ(left, n)

		Label("loop")
		CMPQ(left, U8(64))
		JLT(LabelRef("tail"))
		for i := range 2 {
			c := ZMM()
			VPMOVZXBW(at(codes, 32*i), c)
			VMOVDQU16(l.words(c), at(dst, 64*i))
		}
		ADDQ(U8(64), codes)
		ADDQ(I32(128), dst)
		SUBQ(U8(64), left)
		JMP(LabelRef("loop"))

		l.tail(dst, codes, left, step)
		Label("next")
		ADDQ(U32(256), tables)
		MOVQ(width, first)
	})
	VZEROUPPER()
	RET()
}

type lookupAVX512 struct {
	table       [4]VecVirtual
	upper, sign VecVirtual
}

// load loads a table of 128 words.
func (l *lookupAVX512) load(table GPVirtual) {
	for i := range l.table {
		l.table[i] = ZMM()
		VMOVDQU16(at(table, 64*i), l.table[i])
	}
}

// tail looks up the last codes of a block, up to 32 at a time.
func (l *lookupAVX512) tail(dst, codes, left, step GPVirtual) {
	Label("tail")
	TESTQ(left, left)
	JZ(LabelRef("next"))
	MOVQ(U32(32), step)
	CMPQ(left, step)
	CMOVQLT(left, step)
	k, c := mask(step), ZMM()
	VPMOVZXBW_Z(at(codes, 0), k, c)
	VMOVDQU16(l.words(c), k, at(dst, 0))
	ADDQ(step, codes)
	LEAQ(indexed(dst, step, 2, 0), dst)
	SUBQ(step, left)
	JMP(LabelRef("tail"))
}

// words returns the results of 32 codes, one in each word of c.
func (l *lookupAVX512) words(c VecVirtual) VecVirtual {
	lo, hi, k := ZMM(), ZMM(), K()
	VMOVDQA64(c, lo)
	VPERMI2W(l.table[1], l.table[0], lo)
	VMOVDQA64(c, hi)
	VPERMI2W(l.table[3], l.table[2], hi)
	VPTESTMW(l.upper, c, k)
	VMOVDQU16(hi, k, lo)
	VPSLLW(U8(8), c, c)
	VPTERNLOGD(U8(0x78), l.sign, c, lo) // lo ^ c&sign
	return lo
}

// rowByColumnAVX512 looks the magnitudes up as BF16, which holds them exactly, and multiplies.
func rowByColumnAVX512(out string) {
	declare("rowByColumn"+out+"AVX512",
		"(dst, codes *byte, n int, scales *float32, words *uint16)",
		"multiplies n codes by as many scales. words are the 128 magnitudes of the",
		"codes as BF16.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	scales, table := pointer("scales"), pointer("words")
	r := newRounderAVX512(out)
	l := lookupAVX512{upper: dwords(0x40), sign: dwords(signF32)}
	l.load(table)
	each16(n, func(k Op) {
		s := Op(at(scales, 0))
		if k != nil {
			s = ZMM()
		}
		c := ZMM()
		if k == nil {
			VPMOVZXBD(at(codes, 0), c)
		} else {
			VPMOVZXBD_Z(at(codes, 0), k, c)
			VMOVDQU32_Z(at(scales, 0), k, s)
		}
		v := l.floats(c)
		VMULPS(s, v, v)
		r.quieten(v)
		VPTERNLOGD(U8(0x78), l.sign, c, v)
		r.store(v, at(dst, 0), k)
	}, func() {
		ADDQ(U8(16), codes)
		ADDQ(U8(64), scales)
		ADDQ(U8(16*size(out)), dst)
	})
	RET()
}

// floats returns the magnitudes of 16 codes, one in each dword of c. It shifts c to the top.
func (l *lookupAVX512) floats(c VecVirtual) VecVirtual {
	lo, hi, k := ZMM(), ZMM(), K()
	VMOVDQA64(c, lo)
	VPERMI2W(l.table[1], l.table[0], lo)
	VMOVDQA64(c, hi)
	VPERMI2W(l.table[3], l.table[2], hi)
	VPTESTMD(l.upper, c, k)
	VMOVDQA32(hi, k, lo)
	VPSLLD(U8(16), lo, lo)
	VPSLLD(U8(24), c, c)
	return lo
}

// fillEightsAVX512 does the work of fillEightsAVX2 with one register.
func fillEightsAVX512() {
	declare("fillEightsAVX512", fillEightsSignature, fillEightsDoc...)
	eights, scales := pointer("eights"), pointer("scales")
	n, values := pointer("n"), pointer("values")
	r := newRounderAVX512("BF16")
	v, exponent, split, order := ZMM(), ZMM(), ZMM(), ZMM()
	VMOVUPS(at(values, 32), v.AsY())
	VINSERTF64X4(U8(1), at(values, 0), v, v)
	VMOVDQU32(dwordsY(1<<23), exponent.AsY()) // and zeros above
	VPBROADCASTQ(qword(0x0f0b07030e0a0602), split)
	VPMOVZXBD(qword(0x0d0905010c080400), order.AsY())
	while("scale", n, func() {
		w := ZMM()
		VMULPS_BCST(at(scales, 0), v, w)
		r.upperWords(w)
		VPSUBD(exponent, w, w)
		VPSHUFB(split, w, w) // the low bytes of each lane, and the high ones
		VPERMD(w, order, w)
		VMOVDQU(w.AsY(), at(eights, 0))
		ADDQ(U8(32), eights)
		ADDQ(U8(4), scales)
		DECQ(n)
	})
	VZEROUPPER()
	RET()
}

// rowByEightsAVX512 is rowByEightsAVX2 with registers of twice the size. It takes as many
// instructions as a look-up in tables, but the tables of a wide row would fill the first-level
// cache.
func rowByEightsAVX512() {
	declare("rowByEightsAVX512", rowByEightsSignature, rowByEightsDoc...)
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	first, width, eights := pointer("first"), pointer("width"), pointer("eights")
	e := newEightsAVX512()
	left := GP64()
	e.pairs(dst, codes, n, first, width, eights)
	while("block", n, func() {
		VBROADCASTI32X4(at(eights, 0), e.low)
		VBROADCASTI32X4(at(eights, 16), e.high)
		minimum(left, first, n)
		SUBQ(left, n)

		Label("loop")
		CMPQ(left, U8(64))
		JLT(LabelRef("tail"))
		c := ZMM()
		PREFETCHT0(at(codes, ahead))
		VPERMQ(at(codes, 0), e.order, c)
		w := e.words(c)
		VMOVDQU64(w[0], at(dst, 0))
		VMOVDQU64(w[1], at(dst, 64))
		ADDQ(U8(64), codes)
		ADDQ(I32(128), dst)
		SUBQ(U8(64), left)
		JMP(LabelRef("loop"))

		e.tail(dst, codes, left)
		Label("next")
		ADDQ(U8(32), eights)
		MOVQ(width, first)
	})
	VZEROUPPER()
	RET()
}

// tail decodes the last codes of a block, fewer than 64.
func (e *eightsAVX512) tail(dst, codes, left GPVirtual) {
	Label("tail")
	TESTQ(left, left)
	JZ(LabelRef("next"))
	k := mask(left)
	c := ZMM()
	VMOVDQU8_Z(at(codes, 0), k, c)
	VPERMQ(c, e.order, c)
	w := e.words(c)
	VMOVDQU16(w[0], k, at(dst, 0))
	KSHIFTRQ(U8(32), k, k)
	VMOVDQU16(w[1], k, at(dst, 64))
	ADDQ(left, codes)
	LEAQ(indexed(dst, left, 2, 0), dst)
}

type eightsAVX512 struct {
	labels                                                                int
	low, high                                                             VecVirtual
	order, significand, exponent, subnormal, sign, magnitude, quiet, zero VecVirtual
}

func newEightsAVX512() *eightsAVX512 {
	e := &eightsAVX512{low: ZMM(), high: ZMM(), order: ZMM(), zero: ZMM()}
	e.significand, e.exponent = dwords(0x07070707), dwords(0x78787878)
	e.subnormal, e.sign = dwords(0x08080808), dwords(0x80808080)
	e.magnitude, e.quiet = dwords(0x7f7f7f7f), dwords(quietBF16|quietBF16<<16)
	VPXORD(e.zero, e.zero, e.zero)
	VPMOVZXBQ(qword(0x0703060205010400), e.order) // unpacking works within lanes
	return e
}

// pairs decodes two blocks of 32 codes at a time. Each has two lanes of a register.
func (e *eightsAVX512) pairs(dst, codes, n, first, width, eights GPVirtual) {
	order := ZMM()
	VPMOVZXBQ(qword(0x0705060403010200), order)
	CMPQ(first, U8(32))
	JNE(LabelRef("block"))
	CMPQ(width, U8(32))
	JNE(LabelRef("block"))
	Label("pairs")
	CMPQ(n, U8(64))
	JLT(LabelRef("block"))
	PREFETCHT0(at(codes, ahead))
	c, both := ZMM(), ZMM()
	VMOVDQU64(at(eights, 0), both)
	VSHUFI32X4(U8(0xa0), both, both, e.low)
	VSHUFI32X4(U8(0xf5), both, both, e.high)
	VPERMQ(at(codes, 0), order, c)
	for i, w := range e.words(c) {
		VMOVDQU(w.AsY(), at(dst, 32*i))
		VEXTRACTI64X4(U8(1), w, at(dst, 64+32*i))
	}
	ADDQ(U8(64), codes)
	ADDQ(I32(128), dst)
	ADDQ(U8(64), eights)
	SUBQ(U8(64), n)
	JMP(LabelRef("pairs"))
}

// words returns the results of the 64 codes of c, which are in the order for unpacking.
func (e *eightsAVX512) words(c VecVirtual) [2]VecVirtual {
	i, x, m, low, high := ZMM(), ZMM(), ZMM(), ZMM(), ZMM()
	small, nan := K(), K()
	VPTESTNMB(e.exponent, c, small)
	VPANDD(e.magnitude, c, m)
	VPCMPEQB(e.magnitude, m, nan)
	VPANDD(e.exponent, c, x)
	VPANDD(e.significand, c, i)
	VPADDB(e.subnormal, i, small, i)
	VPSHUFB(i, e.low, low)
	VPSHUFB(i, e.high, high)
	VPTERNLOGD(U8(0x78), e.sign, c, high) // high ^ c&sign
	w, ex := [2]VecVirtual{ZMM(), ZMM()}, [2]VecVirtual{ZMM(), ZMM()}
	VPUNPCKLBW(high, low, w[0])
	VPUNPCKHBW(high, low, w[1])
	VPUNPCKLBW(e.zero, x, ex[0])
	VPUNPCKHBW(e.zero, x, ex[1])
	for j := range w {
		VPSLLW(U8(4), ex[j], ex[j])
		VPADDW(ex[j], w[j], w[j])
	}
	number := LabelRef(fmt.Sprintf("numbers%d", e.labels))
	KTESTQ(nan, nan)
	JZ(number)
	e.quieten(c, nan, w)
	Label(string(number))
	e.labels++
	return w
}

// quieten replaces the words of the codes in nan by the quiet NaN with their sign.
func (e *eightsAVX512) quieten(c VecVirtual, nan OpmaskVirtual, w [2]VecVirtual) {
	bytes, q, k := ZMM(), ZMM(), K()
	VPANDD(e.sign, c, c)
	VPMOVM2B(nan, bytes)
	for j, unpack := range unpack[1] {
		unpack(bytes, bytes, q)
		VPMOVW2M(q, k)
		unpack(c, e.zero, q)
		VPORD(e.quiet, q, q)
		VMOVDQU16(q, k, w[j])
	}
}
