package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// conversions calls f for each pair of different formats.
func conversions(f func(from, to string)) {
	for _, from := range formats {
		for _, to := range formats {
			if from != to {
				f(from, to)
			}
		}
	}
}

const convertSignature = "(dst, src *byte, n int)"

func convertAVX512(from, to string) {
	declare("convert"+from+"To"+to+"AVX512", convertSignature, "converts n values.")
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	r, sign := newRounderAVX512(to), dwords(signF32)
	each16(n, func(k Op) {
		v := loadAVX512(from, at(src, 0), k)
		if from != "BF16" || to != "F32" {
			nan, quiet := K(), ZMM()
			VCMPPS(U8(3), v, v, nan)
			VPANDD(sign, v, quiet)
			VPORD(r.quiet, quiet, quiet)
			VMOVDQA32(quiet, nan, v)
		}
		r.store(v, at(dst, 0), k)
	}, func() {
		ADDQ(U8(16*size(from)), src)
		ADDQ(U8(16*size(to)), dst)
	})
	RET()
}

func convertAVX2(from, to string) {
	declare("convert"+from+"To"+to+"AVX2", convertSignature,
		"converts n values, a multiple of 8.")
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	r, sign := newRounderAVX2(to), dwordsY(signF32)
	while("loop", n, func() {
		v := loadAVX2(from, at(src, 0))
		if from != "BF16" || to != "F32" {
			nan, quiet := YMM(), YMM()
			VCMPPS(U8(3), v, v, nan)
			VPAND(sign, v, quiet)
			VPOR(r.quiet, quiet, quiet)
			VBLENDVPS(nan, quiet, v, v)
		}
		r.store(v, at(dst, 0))
		ADDQ(U8(8*size(from)), src)
		ADDQ(U8(8*size(to)), dst)
		SUBQ(U8(8), n)
	})
	VZEROUPPER()
	RET()
}
