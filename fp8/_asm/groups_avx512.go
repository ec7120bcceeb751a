package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// nibblesByGroupAVX512 computes the 16 results of a group once and looks them up.
func nibblesByGroupAVX512(out string) {
	declare("nibblesByGroup"+out+"AVX512", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	if out == "F32" {
		t := newNibblesAVX512()
		values, r := t.values, newRounderAVX512(out)
		t.values = ZMM()
		a.each(1, 4, func() { scaleValuesAVX512(t.values, values, a, r) }, func(codes int) {
			for i := 0; i < codes; i += 16 {
				VMOVUPS(t.load(at(a.codes, i/2), nil), at(a.dst, 4*i))
			}
		}, nil)
		return
	}
	t := newSixteenAVX512(out)
	if out == "BF16" {
		t.pairs(a)
	}
	a.each(1, 2, func() { t.fill(a) }, func(codes int) {
		if codes == 32 {
			t.decode(a.codes, a.dst, ZMM(), ZMM())
		} else {
			t.decode(a.codes, a.dst, YMM(), YMM())
		}
	}, nil)
}

// scaleValuesAVX512 computes the results of the 16 values for the scale and zero point of a group.
func scaleValuesAVX512(v, values VecVirtual, a *groupArguments, r *rounderAVX512) {
	VSUBPS_BCST(at(a.zeros, 0), values, v)
	VMULPS_BCST(at(a.scales, 0), v, v)
	r.quieten(v)
}

func loadValuesAVX512() VecVirtual {
	p := pointer("values")
	values := ZMM()
	VMOVUPS(at(p, 0), values)
	return values
}

// sixteenAVX512 is the results of the 16 codes of a group, as words.
type sixteenAVX512 struct {
	r              *rounderAVX512
	values, words  VecVirtual
	right, left    VecVirtual
	nibbleOfDwords VecVirtual
}

func newSixteenAVX512(out string) *sixteenAVX512 {
	t := &sixteenAVX512{r: newRounderAVX512(out), values: loadValuesAVX512(), words: ZMM(),
		nibbleOfDwords: dwords(0x000f000f)}
	t.right, t.left = nibbleShifts(16)
	return t
}

// fill computes the results for the scale and zero point of a group.
func (t *sixteenAVX512) fill(a *groupArguments) {
	v := ZMM()
	scaleValuesAVX512(v, t.values, a, t.r)
	if t.r.out == "F16" {
		VCVTPS2PH(U8(0), v, t.words.AsY())
		return
	}
	t.r.words(v)
	VPMOVDW(v, t.words.AsY())
}

// decode decodes as many codes as i has words.
func (t *sixteenAVX512) decode(codes, dst GPVirtual, i, second VecVirtual) {
	words, nibbles := Op(t.words), Op(t.nibbleOfDwords)
	if i.Size() == 32 {
		words, nibbles = t.words.AsY(), t.nibbleOfDwords.AsY()
	}
	VPMOVZXBD(at(codes, 0), i)
	VPSLLD(t.left, i, second)
	VPSRLD(t.right, i, i)
	VPTERNLOGD(U8(0xa8), nibbles, second, i) // (i | second) & nibbles
	VPERMW(words, i, i)
	VMOVDQU16(i, at(dst, 0))
}

// pairs decodes two groups of 16 at a time. It computes each result, even and odd columns apart, so
// that their words need no more than a blend at the end.
func (t *sixteenAVX512) pairs(a *groupArguments) {
	other, odd, upper := XMM(), oddWords(), K()
	swap := GP32()
	VMOVD(t.right, swap)
	XORL(U8(4), swap)
	VMOVD(swap, other)
	MOVL(U32(0xff00), swap)
	KMOVW(swap, upper)

	CMPQ(a.width, U8(16))
	JNE(LabelRef("group"))
	Label("pairs")
	CMPQ(a.n, U8(32))
	JLT(LabelRef("group"))
	PREFETCHT0(at(a.codes, ahead))
	v := [2]VecVirtual{ZMM(), ZMM()}
	VPMOVZXBD(at(a.codes, 0), v[0])
	VPSRLD(other, v[0], v[1])
	VPSRLD(t.right, v[0], v[0])
	VPERMPS(t.values, v[0], v[0])
	VPERMPS(t.values, v[1], v[1])
	a.subtractPair(v, upper)
	scale := ZMM()
	VBROADCASTSS(at(a.scales, 0), scale)
	VBROADCASTSS(at(a.scales, 4), upper, scale)
	nan := K()
	VMULPS(scale, v[0], v[0])
	VMULPS(scale, v[1], v[1])
	VCMPPS(U8(3), v[0], v[1], nan) // if either is NaN
	KORTESTW(nan, nan)
	JZ(LabelRef("numbers"))
	t.r.quieten(v[0])
	t.r.quieten(v[1])
	Label("numbers")
	t.r.storeWords(v[0], v[1], odd, at(a.dst, 0))
	ADDQ(U8(16), a.codes)
	ADDQ(U8(64), a.dst)
	ADDQ(U8(8), a.scales)
	SUBQ(U8(32), a.n)
	JMP(LabelRef("pairs"))
}

// subtractPair subtracts the zero points of two groups, if there are any.
func (a *groupArguments) subtractPair(v [2]VecVirtual, upper OpmaskVirtual) {
	TESTQ(a.zeroStep, a.zeroStep)
	JZ(LabelRef("symmetric"))
	zero := ZMM()
	VBROADCASTSS(at(a.zeros, 0), zero)
	VBROADCASTSS(at(a.zeros, 4), upper, zero)
	VSUBPS(zero, v[0], v[0])
	VSUBPS(zero, v[1], v[1])
	ADDQ(U8(8), a.zeros)
	Label("symmetric")
}

// oddWords returns a mask of the upper words of dwords.
func oddWords() OpmaskVirtual {
	r, k := GP32(), K()
	MOVL(U32(0xaaaaaaaa), r)
	KMOVD(r, k)
	return k
}

// storeWords rounds to BF16 and stores the values of even and odd columns.
func (r *rounderAVX512) storeWords(even, odd VecVirtual, odds OpmaskVirtual, m Mem) {
	r.upperWords(even)
	r.upperWords(odd)
	VPSRLD(U8(16), even, even)
	VMOVDQU16(odd, odds, even)
	VMOVDQU16(even, m)
}

// bytesByGroupAVX512 computes each result. Results that cannot be NaN take less time.
func bytesByGroupAVX512(out string) {
	declare("bytesByGroup"+out+"AVX512", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	r, b := newRounderAVX512(out), newBytesAVX512()
	zero, scale := ZMM(), ZMM()
	finish := func(v VecVirtual) {
		VSUBPS(zero, v, v)
		VMULPS(scale, v, v)
	}
	a.each(2, size(out), func() {
		VBROADCASTSS(at(a.zeros, 0), zero)
		VBROADCASTSS(at(a.scales, 0), scale)
		a.slowUnlessFinite()
	}, func(codes int) {
		PREFETCHT0(at(a.codes, ahead))
		if codes == 32 && out == "BF16" {
			b.decodeWords(at(a.codes, 0), at(a.dst, 0), r, finish)
			return
		}
		for i := 0; i < codes; i += 16 {
			v := b.load(at(a.codes, i), nil)
			finish(v)
			r.store(v, at(a.dst, size(out)*i), nil)
		}
	}, func() {
		v := b.load(at(a.codes, 0), nil)
		finish(v)
		r.quieten(v)
		r.store(v, at(a.dst, 0), nil)
	})
}

// decodeWords decodes 32 codes to BF16. See the function for AVX2.
func (b *bytesAVX512) decodeWords(codes, dst Mem, r *rounderAVX512, finish func(v VecVirtual)) {
	even, odd := ZMM(), ZMM()
	VPMOVZXBW(codes, even)
	VPSRLD(U8(16), even, odd)
	VPXORD(b.flip, odd, odd)
	VPTERNLOGD(U8(0x6a), b.flip, b.word, even) // even & word ^ flip
	for _, v := range []VecVirtual{even, odd} {
		VSUBPS(b.bias, v, v)
		finish(v)
	}
	r.storeWords(even, odd, b.odd, dst)
}

// columnsAVX512 are the parameters of a kernel by column.
type columnsAVX512 struct {
	r                                            *rounderAVX512
	source                                       sourceAVX512
	dst, codes, n, scales, zeros, zeroStep, tame GPVirtual
}

// codesByColumnAVX512 multiplies codes by the scales of their columns, after subtracting the zero
// points.
func codesByColumnAVX512(coding, out string) {
	declare(coding+"ByColumn"+out+"AVX512", byColumnSignature, byColumnDoc("")...)
	c := &columnsAVX512{newRounderAVX512(out), newSourceAVX512(coding), pointer("dst"),
		pointer("codes"), pointer("n"), pointer("scales"), pointer("zeros"), pointer("zeroStep"),
		pointer("tame")}
	SHLQ(U8(4), c.zeroStep)
	if out == "BF16" {
		c.pairs(coding)
	}
	each16(c.n, func(k Op) {
		if k != nil {
			c.tail(codesMask(coding, c.n, k), k)
			return
		}
		v := c.result(0)
		unless(c.tame, "tame", func() { c.r.quieten(v) })
		c.r.store(v, at(c.dst, 0), nil)
	}, func() {
		ADDQ(U8(codesSize(coding, 16)), c.codes)
		ADDQ(U8(64), c.scales)
		ADDQ(c.zeroStep, c.zeros)
		ADDQ(U8(16*size(out)), c.dst)
	})
	RET()
}

// result computes the results of 16 codes, which are bytes bytes ahead.
func (c *columnsAVX512) result(bytes int) VecVirtual {
	v := c.source.load(at(c.codes, bytes), nil)
	VSUBPS(at(c.zeros, 0), v, v)
	VMULPS(at(c.scales, 0), v, v)
	return v
}

// pairs decodes 32 codes at a time to BF16.
func (c *columnsAVX512) pairs(coding string) {
	order := ZMM()
	VPMOVZXBQ(qword(0x0705030106040200), order)
	Label("pairs")
	CMPQ(c.n, U8(32))
	JLT(LabelRef("loop"))
	PREFETCHT0(at(c.codes, ahead))
	var v [2]VecVirtual
	for i := range v {
		v[i] = c.result(codesSize(coding, 16*i))
		ADDQ(U8(64), c.scales)
		ADDQ(c.zeroStep, c.zeros)
	}
	unless(c.tame, "tamePairs", func() {
		c.r.quieten(v[0])
		c.r.quieten(v[1])
	})
	c.r.words(v[0])
	c.r.words(v[1])
	VPACKUSDW(v[1], v[0], v[0])
	VPERMQ(v[0], order, v[0]) // packing works within lanes
	VMOVDQU16(v[0], at(c.dst, 0))
	ADDQ(U8(codesSize(coding, 32)), c.codes)
	ADDQ(U8(64), c.dst)
	SUBQ(U8(32), c.n)
	JMP(LabelRef("pairs"))
}

// tail decodes the last codes, in the bytes of codes. k has a bit for each.
func (c *columnsAVX512) tail(codes, k Op) {
	zero, scale := ZMM(), ZMM()
	VMOVDQU32_Z(at(c.zeros, 0), k, zero)
	VMOVDQU32_Z(at(c.scales, 0), k, scale)
	v := c.source.load(at(c.codes, 0), codes)
	VSUBPS(zero, v, v)
	VMULPS(scale, v, v)
	c.r.quieten(v)
	c.r.store(v, at(c.dst, 0), k)
}

// codesMask returns a mask of the bytes that hold n codes. k has a bit for each code.
func codesMask(coding string, n GPVirtual, k Op) Op {
	if coding != "nibbles" {
		return k
	}
	INCQ(n)
	SHRQ(U8(1), n)
	return mask(n)
}

// sourceAVX512 loads the numbers of 16 codes. If k is not nil, it loads only the bytes in k.
type sourceAVX512 interface{ load(m Mem, k Op) VecVirtual }

func newSourceAVX512(coding string) sourceAVX512 {
	switch coding {
	case "nibbles":
		return newNibblesAVX512()
	case "lows":
		return &lowsAVX512{loadValuesAVX512()}
	}
	return newBytesAVX512()
}

// bytesAVX512 loads numbers of 8 bits. See bytesAVX2.
type bytesAVX512 struct {
	flip, bias, word VecVirtual
	odd              OpmaskVirtual // the upper words of dwords
}

func newBytesAVX512() *bytesAVX512 {
	form := pointer("form")
	b := &bytesAVX512{ZMM(), ZMM(), dwords(0xffff), oddWords()}
	VPBROADCASTD(at(form, byteFlip), b.flip)
	VPBROADCASTD(at(form, byteBias), b.bias)
	return b
}

func (b *bytesAVX512) load(m Mem, k Op) VecVirtual {
	v := dwordsOfBytes(m, k)
	VPXORD(b.flip, v, v)
	VSUBPS(b.bias, v, v)
	return v
}

func dwordsOfBytes(m Mem, k Op) VecVirtual {
	v := ZMM()
	if k == nil {
		VPMOVZXBD(m, v)
	} else {
		VPMOVZXBD_Z(m, k, v)
	}
	return v
}

// lowsAVX512 are codes in the low nibbles of bytes.
type lowsAVX512 struct{ values VecVirtual }

func (l *lowsAVX512) load(m Mem, k Op) VecVirtual {
	c := dwordsOfBytes(m, k)
	VPERMPS(l.values, c, c)
	return c
}

// nibblesAVX512 are two codes in a byte.
type nibblesAVX512 struct{ values, right, left VecVirtual }

func newNibblesAVX512() *nibblesAVX512 {
	n := &nibblesAVX512{values: loadValuesAVX512()}
	n.right, n.left = nibbleShifts(32)
	return n
}

func (n *nibblesAVX512) load(m Mem, k Op) VecVirtual {
	first, second := ZMM(), ZMM()
	if k == nil {
		VPMOVZXBQ(m, first)
	} else {
		VPMOVZXBQ_Z(m, k, first)
	}
	VPSLLQ(n.left, first, second)
	VPSRLQ(n.right, first, first)
	VPORQ(second, first, first)
	VPERMPS(n.values, first, first)
	return first
}
