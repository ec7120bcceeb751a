package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// nibblesByGroupAVX2 computes the 16 results of a group once and looks them up.
func nibblesByGroupAVX2(out string) {
	declare("nibblesByGroup"+out+"AVX2", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	if out == "F32" {
		t := newNibblesAVX2()
		values, r := t.values, newRounderAVX2(out)
		t.values = [2]VecVirtual{YMM(), YMM()}
		a.each(1, 4, func() { scaleValuesAVX2(t.values, values, a, r) }, func(codes int) {
			for i := 0; i < codes; i += 8 {
				VMOVUPS(t.load(at(a.codes, i/2)), at(a.dst, 4*i))
			}
		})
		return
	}
	t := newSixteenAVX2(out)
	a.each(1, 2, func() { t.fill(a) }, func(codes int) {
		if codes == 32 {
			t.decode32(a.codes, a.dst)
		} else {
			t.decode16(a.codes, a.dst)
		}
	})
}

// scaleValuesAVX2 computes the results of the 16 values for the scale and zero point of a group.
func scaleValuesAVX2(w, values [2]VecVirtual, a *groupArguments, r *rounderAVX2) {
	zero, scale := YMM(), YMM()
	VBROADCASTSS(at(a.zeros, 0), zero)
	VBROADCASTSS(at(a.scales, 0), scale)
	for i := range w {
		VSUBPS(zero, values[i], w[i])
		VMULPS(scale, w[i], w[i])
		r.quieten(w[i])
	}
}

func loadValuesAVX2() [2]VecVirtual {
	p := pointer("values")
	values := [2]VecVirtual{YMM(), YMM()}
	VMOVUPS(at(p, 0), values[0])
	VMOVUPS(at(p, 32), values[1])
	return values
}

// sixteenAVX2 is the results of the 16 codes of a group: the low bytes and the high bytes of words.
type sixteenAVX2 struct {
	r           *rounderAVX2
	values      [2]VecVirtual
	low, high   VecVirtual
	right, left VecVirtual
	nibble      VecVirtual
	split       VecVirtual // separates the low bytes of a lane from the high ones
	toLow       VecVirtual // BF16 only: the dwords of low bytes
	toHigh      VecVirtual
}

func newSixteenAVX2(out string) *sixteenAVX2 {
	t := &sixteenAVX2{r: newRounderAVX2(out), values: loadValuesAVX2(), low: YMM(),
		high: YMM(), split: YMM(), nibble: dwordsY(0x0f0f0f0f)}
	t.right, t.left = nibbleShifts(8)
	if out == "F16" {
		VPUNPCKLQDQ(qword(0x0f0d0b0907050301), qword(0x0e0c0a0806040200), t.split.AsX())
		VINSERTI128(U8(1), t.split.AsX(), t.split, t.split)
		return t
	}
	VPBROADCASTQ(qword(0x0f0b07030e0a0602), t.split)
	t.toLow, t.toHigh = YMM(), YMM()
	VPMOVZXBD(qword(0x0501040005010400), t.toLow)
	VPMOVZXBD(qword(0x0703060207030602), t.toHigh)
	return t
}

// fill computes the results for the scale and zero point of a group.
func (t *sixteenAVX2) fill(a *groupArguments) {
	w := [2]VecVirtual{YMM(), YMM()}
	scaleValuesAVX2(w, t.values, a, t.r)
	if t.r.out == "F16" {
		for i := range w {
			VCVTPS2PH(U8(0), w[i], w[i].AsX())
		}
		VINSERTI128(U8(1), w[1].AsX(), w[0], w[0])
		VPSHUFB(t.split, w[0], w[0])
		VPERMQ(U8(0x88), w[0], t.low)
		VPERMQ(U8(0xdd), w[0], t.high)
		return
	}
	for i := range w {
		t.r.upperWords(w[i])
		VPSHUFB(t.split, w[i], w[i])
	}
	VPUNPCKLDQ(w[1], w[0], w[0])
	VPERMD(w[0], t.toLow, t.low)
	VPERMD(w[0], t.toHigh, t.high)
}

// decode32 decodes 32 codes.
func (t *sixteenAVX2) decode32(codes, dst GPVirtual) {
	i := YMM()
	VPSHUFD(U8(0xd8), at(codes, 0), i.AsX()) // unpacking works within halves; this keeps the order
	VPMOVZXBW(i.AsX(), i)
	w := t.look(i, YMM(), YMM(), YMM())
	VMOVDQU(w[0], at(dst, 0))
	VMOVDQU(w[1], at(dst, 32))
}

// decode16 decodes 16 codes.
func (t *sixteenAVX2) decode16(codes, dst GPVirtual) {
	i := XMM()
	VPMOVZXBW(at(codes, 0), i)
	w := t.look(i, XMM(), XMM(), XMM())
	VMOVDQU(w[0], at(dst, 0))
	VMOVDQU(w[1], at(dst, 16))
}

// look returns the results of the pairs of codes in the words of i. The registers are all of one
// size.
func (t *sixteenAVX2) look(i, second, low, high VecVirtual) [2]VecVirtual {
	as := func(v VecVirtual) Op {
		if i.Size() == 16 {
			return v.AsX()
		}
		return v
	}
	VPSLLW(t.left, i, second)
	VPSRLW(t.right, i, i)
	VPOR(second, i, i)
	VPAND(as(t.nibble), i, i)
	VPSHUFB(i, as(t.low), low)
	VPSHUFB(i, as(t.high), high)
	VPUNPCKLBW(high, low, i)
	VPUNPCKHBW(high, low, second)
	return [2]VecVirtual{i, second}
}

// bytesByGroupAVX2 computes each result.
func bytesByGroupAVX2(out string) {
	declare("bytesByGroup"+out+"AVX2", byGroupSignature, byGroupDoc...)
	a := loadGroupArguments()
	r, b := newRounderAVX2(out), newBytesAVX2()
	zero, scale := YMM(), YMM()
	a.each(2, size(out), func() {
		VBROADCASTSS(at(a.zeros, 0), zero)
		VBROADCASTSS(at(a.scales, 0), scale)
	}, func(codes int) {
		for i := 0; i < codes; i += 16 {
			var v [2]VecVirtual
			for j := range v {
				v[j] = b.load(at(a.codes, i+8*j))
				VSUBPS(zero, v[j], v[j])
				VMULPS(scale, v[j], v[j])
				r.quieten(v[j])
			}
			r.store16(v, a.dst, size(out)*i)
		}
	})
}

// store16 rounds 16 values and stores them.
func (r *rounderAVX2) store16(v [2]VecVirtual, dst GPVirtual, disp int) {
	if r.out != "BF16" {
		r.store(v[0], at(dst, disp))
		r.store(v[1], at(dst, disp+8*size(r.out)))
		return
	}
	r.words(v[0])
	r.words(v[1])
	VPACKUSDW(v[1], v[0], v[0])
	VPERMQ(U8(0xd8), v[0], v[0])
	VMOVDQU(v[0], at(dst, disp))
}

// codesByColumnAVX2 multiplies codes by the scales of their columns, after subtracting the zero
// points.
func codesByColumnAVX2(coding, out string) {
	declare(coding+"ByColumn"+out+"AVX2", byColumnSignature,
		"decodes n codes, a multiple of 8, with a scale for each. The zero points",
		"are zeroStep bytes apart.")
	dst, codes, n := pointer("dst"), pointer("codes"), pointer("n")
	scales, zeros, zeroStep := pointer("scales"), pointer("zeros"), pointer("zeroStep")
	source := newSourceAVX2(coding)
	r := newRounderAVX2(out)
	while("loop", n, func() {
		v := source.load(at(codes, 0))
		VSUBPS(at(zeros, 0), v, v)
		VMULPS(at(scales, 0), v, v)
		r.quieten(v)
		r.store(v, at(dst, 0))
		ADDQ(U8(codesSize(coding, 8)), codes)
		ADDQ(U8(32), scales)
		LEAQ(indexed(zeros, zeroStep, 8, 0), zeros)
		ADDQ(U8(8*size(out)), dst)
		SUBQ(U8(8), n)
	})
	VZEROUPPER()
	RET()
}

// sourceAVX2 loads the numbers of 8 codes.
type sourceAVX2 interface{ load(m Mem) VecVirtual }

func newSourceAVX2(coding string) sourceAVX2 {
	switch coding {
	case "nibbles":
		return newNibblesAVX2()
	case "lows":
		return &lowsAVX2{loadValuesAVX2()}
	}
	return newBytesAVX2()
}

// bytesAVX2 are numbers of 8 bits.
type bytesAVX2 struct{ flip, bias VecVirtual }

func newBytesAVX2() *bytesAVX2 {
	form := pointer("form")
	b := &bytesAVX2{YMM(), YMM()}
	VPBROADCASTD(at(form, byteFlip), b.flip)
	VPBROADCASTD(at(form, byteBias), b.bias)
	return b
}

func (b *bytesAVX2) load(m Mem) VecVirtual {
	v := YMM()
	VPMOVZXBD(m, v)
	VPXOR(b.flip, v, v)
	VPSUBD(b.bias, v, v)
	VCVTDQ2PS(v, v)
	return v
}

// lowsAVX2 are codes in the low nibbles of bytes.
type lowsAVX2 struct{ values [2]VecVirtual }

func (l *lowsAVX2) load(m Mem) VecVirtual {
	c := YMM()
	VPMOVZXBD(m, c)
	return valuesOfAVX2(l.values, c)
}

// valuesOfAVX2 returns the values of the codes in the lowest four bits of each dword of c.
func valuesOfAVX2(values [2]VecVirtual, c VecVirtual) VecVirtual {
	v, upper := YMM(), YMM()
	VPERMPS(values[0], c, v)
	VPERMPS(values[1], c, upper)
	VPSLLD(U8(28), c, c)
	VBLENDVPS(c, upper, v, v)
	return v
}

// nibblesAVX2 are two codes in a byte.
type nibblesAVX2 struct {
	values      [2]VecVirtual
	right, left VecVirtual
}

func newNibblesAVX2() *nibblesAVX2 {
	n := &nibblesAVX2{values: loadValuesAVX2()}
	n.right, n.left = nibbleShifts(32)
	return n
}

func (n *nibblesAVX2) load(m Mem) VecVirtual {
	first, second := YMM(), YMM()
	VPMOVZXBQ(m, first)
	VPSLLQ(n.left, first, second)
	VPSRLQ(n.right, first, first)
	VPOR(second, first, first)
	return valuesOfAVX2(n.values, first)
}
