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
	rowByEightsAVX512()
	for _, out := range formats {
		rowByColumnAVX512(out)
	}
}

// fillTablesAVX512 multiplies the 128 magnitudes with each of n scales.
func fillTablesAVX512(out string) {
	TEXT("fillTables"+out+"AVX512", NOSPLIT, "func(tables *uint16, scales *float32, n int, values *float32)")
	Pragma("noescape")
	Doc("fillTables" + out + "AVX512 writes for each of n scales the 128 words that the magnitudes in values times the scale give.")
	tables, scales, n, values := pointer("tables"), pointer("scales"), pointer("n"), pointer("values")
	r := newRounderAVX512(out)
	scale := ZMM()
	Label("table")
	TESTQ(n, n)
	JZ(LabelRef("done"))
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
	JMP(LabelRef("table"))
	Label("done")
	VZEROUPPER()
	RET()
}

// rounderAVX512 turns float32s into an output format.
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

// quieten makes what is no number in v the quiet NaN.
func (r *rounderAVX512) quieten(v VecVirtual) {
	k := K()
	VCMPPS(U8(3), v, v, k) // unordered
	VMOVDQA32(r.quiet, k, v)
}

// store rounds the 16 of v, of those in k if it is not nil, and stores them.
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
		odd := ZMM()
		VPSRLD(U8(16), v, odd)
		VPANDD(r.one, odd, odd)
		VPADDD(r.half, v, v)
		VPADDD(odd, v, v)
		VPSRLD(U8(16), v, v)
		VPMOVDW(operands(v, m)...)
	}
}

// rowByTableAVX512 looks each code's magnitude up in the 128 words of its block, which lie in four registers: two of
// them, 64 words, answer one VPERMI2W; bit 6 of the code chooses the pair. The sign is put back after.
func rowByTableAVX512() {
	TEXT("rowByTableAVX512", NOSPLIT, "func(dst, codes *byte, n, first, width int, tables *uint16)")
	Pragma("noescape")
	Doc("rowByTableAVX512 looks n codes up in the tables of their blocks, 128 words each; the first block has first columns, the others width.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	first, width, tables := pointer("first"), pointer("width"), pointer("tables")
	l := lookupAVX512{upper: words(0x40), sign: words(0x8000)}
	left, step := GP64(), GP64()

	Label("block")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	for i := range l.table {
		l.table[i] = ZMM()
		VMOVDQU16(at(tables, 64*i), l.table[i])
	}
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

	Label("next")
	ADDQ(U32(256), tables)
	MOVQ(width, first)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

type lookupAVX512 struct {
	table       [4]VecVirtual
	upper, sign VecVirtual
}

// words are the results for 32 codes, one in each word of c.
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
	name := "rowByColumn" + out + "AVX512"
	TEXT(name, NOSPLIT, "func(dst, codes *byte, n int, scales *float32, words *uint16)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s multiplies n codes, whose 128 magnitudes as BF16 are words, with as many scales.", name))
	dst, codes, n, scales, table := pointer("dst"), pointer("codes"), pointer("n"), pointer("scales"), pointer("words")
	r := newRounderAVX512(out)
	l := lookupAVX512{upper: dwords(0x40), sign: dwords(signF32)}
	for i := range l.table {
		l.table[i] = ZMM()
		VMOVDQU16(at(table, 64*i), l.table[i])
	}
	Label("loop")
	CMPQ(n, U8(16))
	JLT(LabelRef("tail"))
	c := ZMM()
	VPMOVZXBD(at(codes, 0), c)
	v := l.floats(c)
	VMULPS(at(scales, 0), v, v)
	r.quieten(v)
	VPTERNLOGD(U8(0x78), l.sign, c, v)
	r.store(v, at(dst, 0), nil)
	ADDQ(U8(16), codes)
	ADDQ(U8(64), scales)
	ADDQ(U8(16*size(out)), dst)
	SUBQ(U8(16), n)
	JMP(LabelRef("loop"))

	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	k, s := mask(n), ZMM()
	c = ZMM()
	VPMOVZXBD_Z(at(codes, 0), k, c)
	VMOVDQU32_Z(at(scales, 0), k, s)
	v = l.floats(c)
	VMULPS(s, v, v)
	r.quieten(v)
	VPTERNLOGD(U8(0x78), l.sign, c, v)
	r.store(v, at(dst, 0), k)
	Label("done")
	VZEROUPPER()
	RET()
}

// floats are the magnitudes of 16 codes, one in each dword of c, which it shifts to the top.
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

// rowByEightsAVX512 is rowByEightsAVX2 in registers of twice the size. It takes as many instructions as looking up in
// tables does, but tables of a wide row do not leave the first-level cache to the codes.
func rowByEightsAVX512() {
	TEXT("rowByEightsAVX512", NOSPLIT, "func(dst, codes *byte, n, first, width int, eights *[32]byte)")
	Pragma("noescape")
	Doc("rowByEightsAVX512 decodes n E4M3FN codes to BF16 by the eights of their blocks; the first block has first columns, the others width.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	first, width, eights := pointer("first"), pointer("width"), pointer("eights")
	e := newEightsAVX512()
	left := GP64()

	Label("block")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	VBROADCASTI32X4(at(eights, 0), e.low)
	VBROADCASTI32X4(at(eights, 16), e.high)
	minimum(left, first, n)
	SUBQ(left, n)

	Label("loop")
	CMPQ(left, U8(64))
	JLT(LabelRef("tail"))
	c := ZMM()
	PREFETCHT0(at(codes, 3072))
	VMOVDQU64(at(codes, 0), c)
	w := e.words(c)
	VMOVDQU64(w[0], at(dst, 0))
	VMOVDQU64(w[1], at(dst, 64))
	ADDQ(U8(64), codes)
	ADDQ(I32(128), dst)
	SUBQ(U8(64), left)
	JMP(LabelRef("loop"))

	Label("tail")
	TESTQ(left, left)
	JZ(LabelRef("next"))
	k := mask(left)
	c = ZMM()
	VMOVDQU8_Z(at(codes, 0), k, c)
	w = e.words(c)
	VMOVDQU16(w[0], k, at(dst, 0))
	KSHIFTRQ(U8(32), k, k)
	VMOVDQU16(w[1], k, at(dst, 64))
	ADDQ(left, codes)
	LEAQ(indexed(dst, left, 2, 0), dst)
	Label("next")
	ADDQ(U8(32), eights)
	MOVQ(width, first)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
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
	order := GP64()
	MOVQ(U64(0x0703060205010400), order) // so that unpacking, which knows only lanes, puts the codes in order
	VMOVQ(order, e.order.AsX())
	VPMOVZXBQ(e.order.AsX(), e.order)
	return e
}

// words are the results for the 64 codes of c.
func (e *eightsAVX512) words(c VecVirtual) [2]VecVirtual {
	i, x, m, low, high := ZMM(), ZMM(), ZMM(), ZMM(), ZMM()
	small, nan := K(), K()
	VPERMQ(c, e.order, c)
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

// quieten makes the words of the codes in nan the quiet NaN with their sign.
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
