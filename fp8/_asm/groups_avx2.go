package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// nibblesByGroupAVX2 computes the 16 results of a group once and looks them up.
func nibblesByGroupAVX2(out string) {
	declare("nibblesByGroup"+out+"AVX2", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	if out == "F32" {
		floatsByGroupAVX2(a)
		return
	}
	r, values, t := newRounderAVX2(out), pointer("values"), newWordsAVX2(out)
	p := newPairsAVX2(8)
	w := [2]VecVirtual{YMM(), YMM()}
	a.each(1, 2, func() {
		scaleValuesAVX2(w, values, a, r)
		t.fill(r, w)
	}, func(codes int) {
		i := YMM()
		if codes == 32 {
			// Unpacking works within halves; this keeps the order.
			VPSHUFD(U8(0xd8), at(a.codes, 0), i.AsX())
			VPMOVZXBW(i.AsX(), i)
			p.words(i)
			w := t.look(i)
			VMOVDQU(w[0], at(a.dst, 0))
			VMOVDQU(w[1], at(a.dst, 32))
			return
		}
		VPMOVZXBW(at(a.codes, 0), i.AsX())
		p.words(i)
		w := t.look(i)
		VMOVDQU(w[0].AsX(), at(a.dst, 0))
		VMOVDQU(w[1].AsX(), at(a.dst, 16))
	}, nil)
}

// floatsByGroupAVX2 is nibblesByGroupAVX2 with results in F32.
func floatsByGroupAVX2(a *groupArguments) {
	r, values, p := newRounderAVX2("F32"), pointer("values"), newPairsAVX2(32)
	results := [2]VecVirtual{YMM(), YMM()}
	a.each(1, 4, func() { scaleValuesAVX2(results, values, a, r) }, func(codes int) {
		for i := 0; i < codes; i += 8 {
			v := p.dwords(at(a.codes, i/2))
			VMOVUPS(lookFloats(results[0], results[1], v), at(a.dst, 4*i))
		}
	}, nil)
}

// scaleValuesAVX2 computes the results of the 16 values for the scale and zero point of a group.
func scaleValuesAVX2(w [2]VecVirtual, values GPVirtual, a *groupArguments, r *rounderAVX2) {
	zero, scale := YMM(), YMM()
	VBROADCASTSS(at(a.zeros, 0), zero)
	VBROADCASTSS(at(a.scales, 0), scale)
	for i := range w {
		VMOVUPS(at(values, 32*i), w[i])
		VSUBPS(zero, w[i], w[i])
		VMULPS(scale, w[i], w[i])
	}
	r.quieten(w[0])
	r.quieten(w[1])
}

// wordsAVX2 is a table of 16 words for VPSHUFB. Both halves of low are the low bytes of the words,
// and both halves of high are the high bytes.
type wordsAVX2 struct {
	low, high, split, toLow, toHigh VecVirtual
}

func newWordsAVX2(out string) *wordsAVX2 {
	t := &wordsAVX2{low: YMM(), high: YMM(), split: YMM()}
	if out == "F16" {
		VPUNPCKLQDQ(qword(0x0f0d0b0907050301), qword(0x0e0c0a0806040200), t.split.AsX())
		VINSERTI128(U8(1), t.split.AsX(), t.split, t.split)
		return t
	}
	t.toLow, t.toHigh = YMM(), YMM()
	VPBROADCASTQ(qword(0x0f0b07030e0a0602), t.split)
	VPMOVZXBD(qword(0x0501040005010400), t.toLow)
	VPMOVZXBD(qword(0x0703060207030602), t.toHigh)
	return t
}

// fill rounds 16 values.
func (t *wordsAVX2) fill(r *rounderAVX2, v [2]VecVirtual) {
	if r.out == "BF16" {
		r.upperWords(v[0])
		r.upperWords(v[1])
		t.fillUpper(v)
		return
	}
	for i := range v {
		VCVTPS2PH(U8(0), v[i], v[i].AsX())
	}
	VINSERTI128(U8(1), v[1].AsX(), v[0], v[0])
	VPSHUFB(t.split, v[0], v[0])
	VPERMQ(U8(0x88), v[0], t.low)
	VPERMQ(U8(0xdd), v[0], t.high)
}

// fillUpper takes the upper words of 16 dwords.
func (t *wordsAVX2) fillUpper(v [2]VecVirtual) {
	VPSHUFB(t.split, v[0], v[0])
	VPSHUFB(t.split, v[1], v[1])
	VPUNPCKLDQ(v[1], v[0], v[0])
	VPERMD(v[0], t.toLow, t.low)
	VPERMD(v[0], t.toHigh, t.high)
}

// look returns the words at the indices in the bytes of i: those in the low qwords of its halves,
// and those in the high ones.
func (t *wordsAVX2) look(i VecVirtual) [2]VecVirtual {
	low, high := YMM(), YMM()
	VPSHUFB(i, t.low, low)
	VPSHUFB(i, t.high, high)
	w := [2]VecVirtual{YMM(), YMM()}
	VPUNPCKLBW(high, low, w[0])
	VPUNPCKHBW(high, low, w[1])
	return w
}

// pairsAVX2 separates the two codes of a byte.
type pairsAVX2 struct{ right, left, nibble VecVirtual }

// newPairsAVX2 brings the second code to bit up.
func newPairsAVX2(up int) *pairsAVX2 {
	p := &pairsAVX2{}
	p.right, p.left = nibbleShifts(up)
	if up == 8 {
		p.nibble = dwordsY(0x0f0f0f0f)
	}
	return p
}

// words brings the two codes in each word of v to a byte each.
func (p *pairsAVX2) words(v VecVirtual) {
	second := YMM()
	VPSLLW(p.left, v, second)
	VPSRLW(p.right, v, v)
	VPOR(second, v, v)
	VPAND(p.nibble, v, v)
}

// dwords loads 8 codes, each to the lowest four bits of a dword.
func (p *pairsAVX2) dwords(m Mem) VecVirtual {
	first, second := YMM(), YMM()
	VPMOVZXBQ(m, first)
	VPSLLQ(p.left, first, second)
	VPSRLQ(p.right, first, first)
	VPOR(second, first, first)
	return first
}

// lookFloats returns the float32s at the indices in the lowest four bits of each dword of i.
func lookFloats(lower, upper Op, i VecVirtual) VecVirtual {
	v, u := YMM(), YMM()
	VPERMPS(lower, i, v)
	VPERMPS(upper, i, u)
	VPSLLD(U8(28), i, i)
	VBLENDVPS(i, u, v, v)
	return v
}

// bytesByGroupAVX2 computes each result. Results that cannot be NaN take less time.
func bytesByGroupAVX2(out string) {
	declare("bytesByGroup"+out+"AVX2", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	r, b := newRounderAVX2(out), newBytesAVX2()
	zero, scale := YMM(), YMM()
	finish := func(v VecVirtual) {
		VSUBPS(zero, v, v)
		VMULPS(scale, v, v)
	}
	both := func(m Mem) [2]VecVirtual {
		v := [2]VecVirtual{b.load(m), b.load(m.Offset(8))}
		finish(v[0])
		finish(v[1])
		return v
	}
	a.each(2, size(out), func() {
		VBROADCASTSS(at(a.zeros, 0), zero)
		VBROADCASTSS(at(a.scales, 0), scale)
		a.slowUnlessFinite()
	}, func(codes int) {
		PREFETCHT0(at(a.codes, ahead))
		for i := 0; i < codes; i += 16 {
			if out == "BF16" {
				b.decodeWords(at(a.codes, i), at(a.dst, 2*i), r, finish)
			} else {
				r.store16(both(at(a.codes, i)), at(a.dst, size(out)*i))
			}
		}
	}, func() {
		v := both(at(a.codes, 0))
		r.quieten(v[0])
		r.quieten(v[1])
		r.store16(v, at(a.dst, 0))
	})
}

// decodeWords decodes 16 codes to BF16. It separates even and odd columns, so that their words need
// no more than a blend at the end.
func (b *bytesAVX2) decodeWords(codes, dst Mem, r *rounderAVX2, finish func(v VecVirtual)) {
	even, odd := YMM(), YMM()
	VPMOVZXBW(codes, even)
	VPSRLD(U8(16), even, odd)
	VPAND(b.word, even, even)
	for _, v := range []VecVirtual{even, odd} {
		VPXOR(b.flip, v, v)
		VSUBPS(b.bias, v, v)
		finish(v)
		r.upperWords(v)
	}
	VPSRLD(U8(16), even, even)
	VPBLENDW(U8(0xaa), odd, even, even)
	VMOVDQU(even, dst)
}

// store16 rounds 16 values and stores them.
func (r *rounderAVX2) store16(v [2]VecVirtual, m Mem) {
	if r.out != "BF16" {
		r.store(v[0], m)
		r.store(v[1], m.Offset(8*size(r.out)))
		return
	}
	r.words(v[0])
	r.words(v[1])
	VPACKUSDW(v[1], v[0], v[0])
	VPERMQ(U8(0xd8), v[0], v[0])
	VMOVDQU(v[0], m)
}

// bytesAVX2 loads numbers of 8 bits. A byte in the last places of 2^23 is a float32 at once.
type bytesAVX2 struct{ flip, bias, word VecVirtual }

func newBytesAVX2() *bytesAVX2 {
	form, b := pointer("form"), &bytesAVX2{YMM(), YMM(), dwordsY(0xffff)}
	VPBROADCASTD(at(form, byteFlip), b.flip)
	VPBROADCASTD(at(form, byteBias), b.bias)
	return b
}

func (b *bytesAVX2) load(m Mem) VecVirtual {
	v := YMM()
	VPMOVZXBD(m, v)
	VPXOR(b.flip, v, v)
	VSUBPS(b.bias, v, v)
	return v
}

// columnsAVX2 are the parameters of a kernel by column.
type columnsAVX2 struct {
	r                                            *rounderAVX2
	dst, codes, n, scales, zeros, zeroStep, tame GPVirtual
	labels                                       int
}

func declareColumnsAVX2(coding, out string) *columnsAVX2 {
	declare(coding+"ByColumn"+out+"AVX2", byColumnSignature,
		byColumnDoc(", a multiple of 16,")...)
	c := &columnsAVX2{newRounderAVX2(out), pointer("dst"), pointer("codes"), pointer("n"),
		pointer("scales"), pointer("zeros"), pointer("zeroStep"), pointer("tame"), 0}
	SHLQ(U8(4), c.zeroStep)
	return c
}

// finish computes and stores the results of 16 numbers.
func (c *columnsAVX2) finish(v [2]VecVirtual) {
	for j := range v {
		VSUBPS(at(c.zeros, 32*j), v[j], v[j])
		VMULPS(at(c.scales, 32*j), v[j], v[j])
	}
	unless(c.tame, fmt.Sprintf("tame%d", c.labels), func() {
		c.r.quieten(v[0])
		c.r.quieten(v[1])
	})
	c.labels++
	c.r.store16(v, at(c.dst, 0))
	ADDQ(U8(64), c.scales)
	ADDQ(c.zeroStep, c.zeros)
	ADDQ(U8(16*size(c.r.out)), c.dst)
}

// advance moves on by 16 or 32 codes of size bytes.
func (c *columnsAVX2) advance(codes, size int) {
	ADDQ(U8(size), c.codes)
	SUBQ(U8(codes), c.n)
}

func bytesByColumnAVX2(out string) {
	c, b := declareColumnsAVX2("bytes", out), newBytesAVX2()
	while("loop", c.n, func() {
		PREFETCHT0(at(c.codes, ahead))
		c.finish([2]VecVirtual{b.load(at(c.codes, 0)), b.load(at(c.codes, 8))})
		c.advance(16, 16)
	})
	VZEROUPPER()
	RET()
}

// lowsByColumnAVX2 looks numbers up in a table of words if BF16 holds them exactly.
func lowsByColumnAVX2(out string) {
	c, values := declareColumnsAVX2("lows", out), pointer("values")
	t, nibble := newExactAVX2(values), dwordsY(0x0f0f0f0f)
	c.lookExact(t, 32, func(i VecVirtual) {
		PREFETCHT0(at(c.codes, ahead))
		VPERMD(at(c.codes, 0), t.order, i)
		VPAND(nibble, i, i)
	})
	while("loop", c.n, func() {
		v := [2]VecVirtual{YMM(), YMM()}
		for j := range v {
			VPMOVZXBD(at(c.codes, 8*j), v[j])
			v[j] = lookFloats(at(values, 0), at(values, 32), v[j])
		}
		c.finish(v)
		c.advance(16, 16)
	})
	VZEROUPPER()
	RET()
}

// nibblesByColumnAVX2 does the same with two codes in a byte.
func nibblesByColumnAVX2(out string) {
	c, values := declareColumnsAVX2("nibbles", out), pointer("values")
	t, pairs := newExactAVX2(values), newPairsAVX2(8)
	c.lookExact(t, 16, func(i VecVirtual) {
		PREFETCHT0(at(c.codes, ahead))
		VPMOVZXBW(at(c.codes, 0), i)
		pairs.words(i)
		VPERMD(i, t.order, i)
	})
	p := newPairsAVX2(32)
	while("loop", c.n, func() {
		var v [2]VecVirtual
		for j := range v {
			v[j] = lookFloats(at(values, 0), at(values, 32), p.dwords(at(c.codes, 4*j)))
		}
		c.finish(v)
		c.advance(16, 8)
	})
	VZEROUPPER()
	RET()
}

// exactAVX2 is a table of numbers that BF16 holds exactly.
type exactAVX2 struct {
	*wordsAVX2
	order, zero VecVirtual
}

// newExactAVX2 makes a table of 16 values. It jumps to "inexact" if BF16 does not hold one of them.
func newExactAVX2(values GPVirtual) *exactAVX2 {
	t := &exactAVX2{newWordsAVX2("BF16"), YMM(), YMM()}
	w, rest := [2]VecVirtual{YMM(), YMM()}, dwordsY(0xffff)
	for i := range w {
		VMOVUPS(at(values, 32*i), w[i])
		VPTEST(w[i], rest)
		JNZ(LabelRef("inexact"))
	}
	t.fillUpper(w)
	VPXOR(t.zero, t.zero, t.zero)
	VPMOVZXBD(qword(0x0705030106040200), t.order) // so that unpacking twice keeps the order
	return t
}

// lookExact decodes 32 codes at a time, which have bytes bytes. load loads them as bytes, in the
// order of t.
func (c *columnsAVX2) lookExact(t *exactAVX2, bytes int, load func(i VecVirtual)) {
	Label("exact")
	CMPQ(c.n, U8(32))
	JLT(LabelRef("inexact"))
	i := YMM()
	load(i)
	for _, w := range t.look(i) {
		v := [2]VecVirtual{YMM(), YMM()}
		VPUNPCKLWD(w, t.zero, v[0])
		VPUNPCKHWD(w, t.zero, v[1])
		c.finish(v)
	}
	c.advance(32, bytes)
	JMP(LabelRef("exact"))
	Label("inexact")
}
