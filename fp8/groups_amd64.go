//go:build !purego

package fp8

// forms describe each coding to the kernels. The first number is the shift to the first nibble of a
// byte. The others turn codes of 8 bits into numbers. A byte is put into the bits of 2^23 by
// exclusive or, and a float32 is subtracted from the result.
var forms = [...][3]uint32{
	Nibbles:     {0},
	HighNibbles: {4},
	LowBytes:    {},
	Int8:        {0, 0x4b000080, 0x4b000080},
	Uint8:       {0, 0x4b000000, 0x4b000000},
	Offset8:     {0, 0x4b000000, 0x4b000080},
}

// pointerAndStep returns the first zero point and the distance to the next one in bytes.
func pointerAndStep(zeros []float32) (*float32, int) {
	if len(zeros) == 0 {
		return &noZeros[0], 0
	}
	return &zeros[0], 4
}

// rowOfGroups decodes whole sixteens of codes. The first group has first columns.
func (s *scratch) rowOfGroups(dst, codes []byte, b *strip, first int, scales, zeros []float32) {
	if using == generic {
		s.rowOfGroupsGeneric(dst, codes, b, first, scales, zeros)
		return
	}
	kernels := &bytesByGroup
	if b.coding.paired() {
		kernels = &nibblesByGroup
	}
	zero, step := pointerAndStep(zeros)
	kernels[using][b.out](&dst[0], &codes[0], b.cols, first, b.width, &scales[0], zero, step,
		&b.values[0], &forms[b.coding])
}

func (s *scratch) columns(b *strip, scales, zeros []float32) {
	if using == generic {
		s.columnsGeneric(b, scales, zeros)
		return
	}
	tame := 0
	if b.rows >= sixteen && b.tame && areTame(scales) && areTame(zeros) {
		tame = 1
	}
	for r := range b.rows {
		dst, codes := b.row(r)
		s.rowOfColumns(dst, codes, b, scales, zeros, tame)
	}
}

// rowOfColumns decodes by assembly, except a second nibble at the beginning. AVX2 needs whole
// sixteens.
func (s *scratch) rowOfColumns(dst, codes []byte, b *strip, scales, zeros []float32, tame int) {
	begin, end := min(b.skip, b.cols), b.cols
	if using == avx2 {
		end -= (end - begin) % sixteen
	}
	s.rowOfColumnsGeneric(dst, codes, b, 0, begin, scales, zeros)
	if begin < end {
		zero, step := pointerAndStep(zeros[min(begin, len(zeros)):])
		columnKernels[b.coding][using][b.out](&dst[begin*b.out.Size()],
			&codes[b.coding.size(0, 2*begin)], end-begin, &scales[begin], zero, step,
			&b.values[0], &forms[b.coding], tame)
	}
	s.rowOfColumnsGeneric(dst, codes, b, end, b.cols, scales, zeros)
}

type (
	groupKernel = func(dst, codes *byte, n, first, width int, scales, zeros *float32,
		zeroStep int, values *float32, form *[3]uint32)
	columnKernel = func(dst, codes *byte, n int, scales, zeros *float32, zeroStep int,
		values *float32, form *[3]uint32, tame int)
)

// The kernels by implementation and destination.
var (
	nibblesByGroup = [...][F32 + 1]groupKernel{
		avx2: {BF16: nibblesByGroupBF16AVX2, F16: nibblesByGroupF16AVX2,
			F32: nibblesByGroupF32AVX2},
		avx512: {BF16: nibblesByGroupBF16AVX512, F16: nibblesByGroupF16AVX512,
			F32: nibblesByGroupF32AVX512},
	}
	bytesByGroup = [...][F32 + 1]groupKernel{
		avx2: {BF16: bytesByGroupBF16AVX2, F16: bytesByGroupF16AVX2, F32: bytesByGroupF32AVX2},
		avx512: {BF16: bytesByGroupBF16AVX512, F16: bytesByGroupF16AVX512,
			F32: bytesByGroupF32AVX512},
	}
	nibblesByColumn = [...][F32 + 1]columnKernel{
		avx2: {BF16: nibblesByColumnBF16AVX2, F16: nibblesByColumnF16AVX2,
			F32: nibblesByColumnF32AVX2},
		avx512: {BF16: nibblesByColumnBF16AVX512, F16: nibblesByColumnF16AVX512,
			F32: nibblesByColumnF32AVX512},
	}
	lowsByColumn = [...][F32 + 1]columnKernel{
		avx2: {BF16: lowsByColumnBF16AVX2, F16: lowsByColumnF16AVX2, F32: lowsByColumnF32AVX2},
		avx512: {BF16: lowsByColumnBF16AVX512, F16: lowsByColumnF16AVX512,
			F32: lowsByColumnF32AVX512},
	}
	bytesByColumn = [...][F32 + 1]columnKernel{
		avx2: {BF16: bytesByColumnBF16AVX2, F16: bytesByColumnF16AVX2,
			F32: bytesByColumnF32AVX2},
		avx512: {BF16: bytesByColumnBF16AVX512, F16: bytesByColumnF16AVX512,
			F32: bytesByColumnF32AVX512},
	}
)

// columnKernels are the kernels with a scale for each column, by coding.
var columnKernels = [...]*[avx512 + 1][F32 + 1]columnKernel{
	Nibbles: &nibblesByColumn, HighNibbles: &nibblesByColumn, LowBytes: &lowsByColumn,
	Int8: &bytesByColumn, Uint8: &bytesByColumn, Offset8: &bytesByColumn,
}
