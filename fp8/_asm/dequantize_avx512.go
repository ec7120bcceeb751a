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
	PREFETCHT0(at(codes, 1024))
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
