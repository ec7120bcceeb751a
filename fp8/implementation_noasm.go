//go:build !amd64 || purego

package fp8

func best() implementation { return generic }

func (s *scratch) fillTables(b *band, width int, scales []float32) tables {
	return s.fillTablesGeneric(b, width, scales)
}

func (s *scratch) rowByTable(dst, codes []byte, first, width int, t tables) {
	rowByTableGeneric(dst, codes, first, width, s.words[:])
}

func rowByColumn(dst []byte, out Format, codes []byte, f Format, scales []float32) {
	rowByColumnGeneric(dst, out, codes, f, scales)
}

func transpose(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	transposeGeneric(dst, dstStride, src, srcStride, rows, cols, size)
}

func convert(dst []byte, to Format, src []byte, from Format) { convertGeneric(dst, to, src, from) }

func maxAbs(acc []uint32, src []byte, from Format) { maxAbsGeneric(acc, src, from) }

func quantizeRow(codes, src []byte, from Format, scales []float32) (saturated int) {
	return quantizeRowGeneric(codes, src, from, scales)
}

func (s *scratch) rowOfGroups(dst, codes []byte, b *strip, first int, scales, zeros []float32) {
	s.rowOfGroupsGeneric(dst, codes, b, first, scales, zeros)
}

func (s *scratch) columns(b *strip, scales, zeros []float32) {
	s.columnsGeneric(b, scales, zeros)
}

func unpack(dst, src []byte, first, bits int, order Order) {
	unpackGeneric(dst, src, first, bits, order)
}

func unpackDown(dst, low, high []byte, word, shift, bits int) {
	unpackDownGeneric(dst, low, high, word, shift, bits)
}
