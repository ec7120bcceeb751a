//go:build !purego

package fp8

import (
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"
)

func best() implementation {
	x := &cpu.X86
	switch {
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI2 &&
		x.HasPOPCNT && x.HasAVX2 && x.HasF16C:
		return avx512
	case x.HasAVX2 && x.HasF16C && x.HasPOPCNT:
		return avx2
	}
	return generic
}

// eights returns the memory of the tables of fillEightsAVX2. It shares the memory of the word
// tables, because a field of its own would be unused without assembly.
func (s *scratch) eights() *[32]byte { return (*[32]byte)(unsafe.Pointer(&s.words[0])) }

// The description of a format of codes for the kernels.
var (
	// magnitudes are the values of the codes without sign, as BF16, which holds them exactly.
	magnitudes = map[Format]*[128]uint16{E4M3FN: magnitudesOf(E4M3FN), E5M2: magnitudesOf(E5M2)}

	// viaF16 is the shift from a code to an F16 (as two words), the magnitude that is NaN (twice),
	// and the factor that follows.
	viaF16 = map[Format]*[4]uint32{
		E4M3FN: {7, 0, 0x007f007f, math.Float32bits(256)},
		E5M2:   {8, 0, 0xffffffff, math.Float32bits(1)}, // the NaNs of E5M2 are NaNs of F16
	}
)

func magnitudesOf(f Format) *[128]uint16 {
	var t [128]uint16
	for c := range t {
		t[c] = RoundBF16(f.Values()[c])
	}
	return &t
}

func (s *scratch) fillTables(b *band, width int, scales []float32) tables {
	values, uses := &b.format.Values()[0], b.uses(width)
	switch {
	case using == generic:
		return s.fillTablesGeneric(b, width, scales)
	case uses >= 32 && width >= 32 && b.out == BF16 && b.format == E4M3FN && haveEights(scales):
		if using == avx512 {
			fillEightsAVX512(s.eights(), &scales[0], len(scales), values)
		} else {
			fillEightsAVX2(s.eights(), &scales[0], len(scales), values)
		}
		return eightTables
	case using == avx2 || uses < 256:
		return noTables
	case b.out == BF16:
		fillTablesBF16AVX512(&s.words[0], &scales[0], len(scales), values)
	default:
		fillTablesF16AVX512(&s.words[0], &scales[0], len(scales), values)
	}
	return magnitudeTables
}

// haveEights reports whether every product of a normal code and a scale is normal and finite.
func haveEights(scales []float32) bool {
	for _, scale := range scales {
		const least, most = 127 - 119, 127 + 118
		if math.Float32bits(scale)>>23&0xff-least > most-least {
			return false
		}
	}
	return true
}

func (s *scratch) rowByTable(dst, codes []byte, first, width int, t tables) {
	switch {
	case t == wordTables:
		rowByTableGeneric(dst, codes, first, width, s.words[:])
	case t == magnitudeTables:
		rowByTableAVX512(&dst[0], &codes[0], len(codes), first, width, &s.words[0])
	case using == avx512:
		rowByEightsAVX512(&dst[0], &codes[0], len(codes), first, width, s.eights())
	default:
		rowByEightsAVX2(&dst[0], &codes[0], len(codes), first, width, s.eights())
	}
}

func rowByColumn(dst []byte, out Format, codes []byte, f Format, scales []float32) {
	n := len(codes)
	if using == avx2 {
		n &^= 7
	}
	switch {
	case n == 0 || using == generic:
		n = 0
	case using == avx512:
		rowsByColumnAVX512[out](&dst[0], &codes[0], n, &scales[0], &magnitudes[f][0])
	default:
		rowsByColumnAVX2[out](&dst[0], &codes[0], n, &scales[0], viaF16[f])
	}
	rowByColumnGeneric(dst[n*out.Size():], out, codes[n:], f, scales[n:])
}

var (
	rowsByColumnAVX512 = [...]func(dst, codes *byte, n int, scales *float32, words *uint16){
		BF16: rowByColumnBF16AVX512, F16: rowByColumnF16AVX512, F32: rowByColumnF32AVX512,
	}
	rowsByColumnAVX2 = [...]func(dst, codes *byte, n int, scales *float32, format *[4]uint32){
		BF16: rowByColumnBF16AVX2, F16: rowByColumnF16AVX2, F32: rowByColumnF32AVX2,
	}
	maxAbsAVX512 = [...]func(acc *uint32, src *byte, n int){
		BF16: maxAbsBF16AVX512, F16: maxAbsF16AVX512, F32: maxAbsF32AVX512,
	}
	maxAbsAVX2 = [...]func(acc *uint32, src *byte, n int){
		BF16: maxAbsBF16AVX2, F16: maxAbsF16AVX2, F32: maxAbsF32AVX2,
	}

	quantizeRowAVX512 = [...]func(codes, src *byte, n int, scales *float32) int{
		BF16: quantizeRowBF16AVX512, F16: quantizeRowF16AVX512, F32: quantizeRowF32AVX512,
	}
	quantizeRowAVX2 = [...]func(codes, src *byte, n int, scales *float32) int{
		BF16: quantizeRowBF16AVX2, F16: quantizeRowF16AVX2, F32: quantizeRowF32AVX2,
	}
)

func convert(dst []byte, to Format, src []byte, from Format) {
	n := len(src) / from.Size()
	switch using {
	case avx2:
		n &^= 7
	case generic:
		n = 0
	}
	if n > 0 {
		converters[using][from][to](&dst[0], &src[0], n)
	}
	convertGeneric(dst[n*to.Size():], to, src[n*from.Size():], from)
}

// converters are the kernels by implementation, source and destination.
var converters = [...][F32 + 1][F32 + 1]func(dst, src *byte, n int){
	avx2: {
		F32:  {BF16: convertF32ToBF16AVX2, F16: convertF32ToF16AVX2},
		BF16: {F32: convertBF16ToF32AVX2, F16: convertBF16ToF16AVX2},
		F16:  {F32: convertF16ToF32AVX2, BF16: convertF16ToBF16AVX2},
	},
	avx512: {
		F32:  {BF16: convertF32ToBF16AVX512, F16: convertF32ToF16AVX512},
		BF16: {F32: convertBF16ToF32AVX512, F16: convertBF16ToF16AVX512},
		F16:  {F32: convertF16ToF32AVX512, BF16: convertF16ToBF16AVX512},
	},
}

func maxAbs(acc []uint32, src []byte, from Format) {
	n := len(acc)
	switch using {
	case avx512:
		maxAbsAVX512[from](&acc[0], &src[0], n)
	case avx2:
		if n &^= 7; n > 0 {
			maxAbsAVX2[from](&acc[0], &src[0], n)
		}
		maxAbsGeneric(acc[n:], src[n*from.Size():], from)
	default:
		maxAbsGeneric(acc, src, from)
	}
}

func quantizeRow(codes, src []byte, from Format, scales []float32) (saturated int) {
	n := len(codes)
	switch using {
	case avx512:
		return quantizeRowAVX512[from](&codes[0], &src[0], n, &scales[0])
	case avx2:
		if n &^= 7; n > 0 {
			saturated = quantizeRowAVX2[from](&codes[0], &src[0], n, &scales[0])
		}
		return saturated + quantizeRowGeneric(codes[n:], src[n*from.Size():], from, scales[n:])
	}
	return quantizeRowGeneric(codes, src, from, scales)
}
