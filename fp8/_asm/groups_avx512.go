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
		r.upperWords(v)
	}
	VPSRLD(U8(16), even, even)
	VMOVDQU16(odd, b.odd, even)
	VMOVDQU16(even, dst)
}

// codesByColumnAVX512 multiplies codes by the scales of their columns, after subtracting the zero
// points.
func codesByColumnAVX512(coding, out string) {
	declare(coding+"ByColumn"+out+"AVX512", byColumnSignature,
		"decodes n codes with a scale for each. The zero points are zeroStep bytes",
		"apart: 4, or 0 for 16 that are the same.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	scales, zeros, zeroStep := pointer("scales"), pointer("zeros"), pointer("zeroStep")
	source := newSourceAVX512(coding)
	r := newRounderAVX512(out)
	SHLQ(U8(4), zeroStep)
	each16(n, func(k Op) {
		if k == nil {
			v := source.load(at(codes, 0), nil)
			VSUBPS(at(zeros, 0), v, v)
			VMULPS(at(scales, 0), v, v)
			r.quieten(v)
			r.store(v, at(dst, 0), nil)
			return
		}
		zero, scale := ZMM(), ZMM()
		VMOVDQU32_Z(at(zeros, 0), k, zero)
		VMOVDQU32_Z(at(scales, 0), k, scale)
		v := source.load(at(codes, 0), codesMask(coding, n, k))
		VSUBPS(zero, v, v)
		VMULPS(scale, v, v)
		r.quieten(v)
		r.store(v, at(dst, 0), k)
	}, func() {
		ADDQ(U8(codesSize(coding, 16)), codes)
		ADDQ(U8(64), scales)
		ADDQ(zeroStep, zeros)
		ADDQ(U8(16*size(out)), dst)
	})
	RET()
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
	form, odd := pointer("form"), GP32()
	b := &bytesAVX512{ZMM(), ZMM(), dwords(0xffff), K()}
	MOVL(U32(0xaaaaaaaa), odd)
	KMOVD(odd, b.odd)
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
