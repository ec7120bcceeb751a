package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A square is transposed as follows. Number the registers, and the elements of a 16-byte lane, in
// binary. One round unpacks register i with register i + half. This rotates the bits by one. After
// as many rounds as a register number has bits, elements have become registers. The elements of a
// column are then still in the lanes of several groups of registers, which are joined at last.

// unpack holds the two halves of interleaving, by the size of the elements.
var unpack = map[int][2]func(...Op){
	1: {VPUNPCKLBW, VPUNPCKHBW},
	2: {VPUNPCKLWD, VPUNPCKHWD},
	4: {VPUNPCKLDQ, VPUNPCKHDQ},
	8: {VPUNPCKLQDQ, VPUNPCKHQDQ},
}

// rounds unpacks the registers of a group, a power of two of them, until they are transposed.
func rounds(group []VecVirtual, size int, vector func() VecVirtual) []VecVirtual {
	for n := len(group); n > 1; n /= 2 {
		var next []VecVirtual
		for i := range len(group) / 2 {
			a, b := group[i], group[i+len(group)/2]
			low, high := vector(), vector()
			unpack[size][0](b, a, low)
			unpack[size][1](b, a, high)
			next = append(next, low, high)
		}
		group = next
	}
	return group
}

// transposer walks over tiles.
type transposer struct {
	dst, dstStride, dstStep, src, srcStride, srcStep, n, scratch GPVirtual
}

func newTransposer(name, tile string) *transposer {
	declare(name, "(dst *byte, dstStride, dstStep int, src *byte, srcStride, srcStep, n int, "+
		"scratch *byte)", "transposes n tiles of "+tile+".",
		"The tiles begin dstStep and srcStep bytes apart.")
	return &transposer{
		dst: pointer("dst"), dstStride: pointer("dstStride"), dstStep: pointer("dstStep"),
		src: pointer("src"), srcStride: pointer("srcStride"), srcStep: pointer("srcStep"),
		n: pointer("n"), scratch: pointer("scratch"),
	}
}

// each emits a loop over the tiles, and the end of the function. With stream, the stores bypass the
// caches.
func (t *transposer) each(stream bool, tile func()) {
	while("tile", t.n, func() {
		tile()
		ADDQ(t.srcStep, t.src)
		ADDQ(t.dstStep, t.dst)
		DECQ(t.n)
	})
	if stream {
		SFENCE()
	}
	VZEROUPPER()
	RET()
}

// unpackGroups transposes groups of rows within lanes, from src to scratch.
func (t *transposer) unpackGroups(from, to, i GPVirtual, groups, rows, size int, k kernel) {
	MOVQ(t.src, from)
	MOVQ(t.scratch, to)
	MOVQ(U32(uint32(groups)), i)
	Label("group")
	var group []VecVirtual
	for range rows {
		v := k.vector()
		k.move(at(from, 0), v)
		if k.prefetch {
			PREFETCHT0(at(from, 64)) // the next column of tiles; the source may come from memory
		}
		ADDQ(t.srcStride, from)
		group = append(group, v)
	}
	for j, v := range rounds(group, size, k.vector) {
		k.move(v, at(to, k.bytes*j))
	}
	ADDQ(I32(k.bytes*rows), to)
	DECQ(i)
	JNZ(LabelRef("group"))
}

// kernel has the registers of an instruction set.
type kernel struct {
	vector   func() VecVirtual
	move     func(a, b Op)
	bytes    int // of a register
	prefetch bool
}

func transposeAVX512() {
	for _, size := range []int{1, 2, 4, 8} {
		tilesAVX512(size, false)
		tilesAVX512(size, true)
	}
}

// tilesAVX512 transposes squares of 64 × 64 bytes: four groups of 16/size rows.
func tilesAVX512(size int, stream bool) {
	name, store := fmt.Sprintf("transposeTiles%dAVX512", size), move512
	if stream {
		name, store = fmt.Sprintf("streamTiles%dAVX512", size), VMOVNTDQ
	}
	t := newTransposer(name, fmt.Sprintf("%d × %d elements of %d bytes", 64/size, 64/size, size))
	rows := 16 / size
	from, to, i, quarter, three := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(t.dstStride, quarter)
	IMUL3Q(U8(rows), quarter, quarter)
	LEAQ(indexed(quarter, quarter, 2, 0), three)
	t.each(stream, func() {
		t.unpackGroups(from, to, i, 4, rows, size, kernel{ZMM, move512, 64, true})
		MOVQ(t.scratch, from)
		MOVQ(t.dst, to)
		MOVQ(U32(uint32(rows)), i)
		Label("columns")
		columns := []Mem{
			at(to, 0), indexed(to, quarter, 1, 0),
			indexed(to, quarter, 2, 0), indexed(to, three, 1, 0),
		}
		for l, z := range lanesAVX512(from, 64*rows) {
			store(z, columns[l])
		}
		ADDQ(U8(64), from)
		ADDQ(t.dstStride, to)
		DECQ(i)
		JNZ(LabelRef("columns"))
	})
}

func move512(a, b Op) { VMOVDQU64(a, b) }

// lanesAVX512 transposes the 4 × 4 lanes of four registers in memory, gap bytes apart.
func lanesAVX512(from GPVirtual, gap int) (out [4]VecVirtual) {
	var x, t [4]VecVirtual
	for g := range x {
		x[g], t[g], out[g] = ZMM(), ZMM(), ZMM()
		VMOVDQU64(at(from, g*gap), x[g])
	}
	VSHUFI64X2(U8(0x44), x[1], x[0], t[0])
	VSHUFI64X2(U8(0x44), x[3], x[2], t[1])
	VSHUFI64X2(U8(0xee), x[1], x[0], t[2])
	VSHUFI64X2(U8(0xee), x[3], x[2], t[3])
	for i := range out {
		VSHUFI64X2(U8([]int{0x88, 0xdd}[i%2]), t[i&2+1], t[i&2], out[i])
	}
	return out
}

func transposeAVX2() {
	for _, size := range []int{1, 2} {
		tilesAVX2(size, false)
		tilesAVX2(size, true)
	}
}

// tilesAVX2 transposes rectangles of 64/size rows and 32/size columns: groups of eight rows.
func tilesAVX2(size int, stream bool) {
	name, store := fmt.Sprintf("transposeTiles%dAVX2", size), VMOVDQU
	if stream {
		name, store = fmt.Sprintf("streamTiles%dAVX2", size), VMOVNTDQ
	}
	t := newTransposer(name, fmt.Sprintf("%d × %d elements of %d bytes", 64/size, 32/size, size))
	from, to, i, half := GP64(), GP64(), GP64(), GP64()
	MOVQ(t.dstStride, half)
	SHLQ(U8(map[int]int{1: 4, 2: 3}[size]), half) // columns of a lane
	t.each(stream, func() {
		t.unpackGroups(from, to, i, 8/size, 8, size, kernel{YMM, VMOVDQU, 32, false})
		MOVQ(t.scratch, from)
		MOVQ(t.dst, to)
		MOVQ(U32(8), i)
		Label("columns")
		for _, p := range partsAVX2(size, from) {
			joinAVX2(p, to, half, store)
			ADDQ(t.dstStride, to)
		}
		ADDQ(U8(32), from)
		DECQ(i)
		JNZ(LabelRef("columns"))
	})
}

// partsAVX2 loads the columns whose parts are in one register of each group. These are two per lane
// for bytes, and one for words. It returns the registers of each column.
func partsAVX2(size int, from GPVirtual) [][]VecVirtual {
	parts := make([][]VecVirtual, 2/size)
	if size == 2 {
		for g := range 4 {
			y := YMM()
			VMOVDQU(at(from, 256*g), y)
			parts[0] = append(parts[0], y)
		}
		return parts
	}
	for g := 0; g < 8; g += 2 {
		a := YMM()
		VMOVDQU(at(from, 256*g), a)
		for j, f := range unpack[8] {
			y := YMM()
			f(at(from, 256*(g+1)), a, y)
			parts[j] = append(parts[j], y)
		}
	}
	return parts
}

// joinAVX2 writes one column of each lane.
func joinAVX2(p []VecVirtual, to, half GPVirtual, store func(a, b Op)) {
	low, high := YMM(), YMM()
	for h := range 2 {
		VPERM2I128(U8(0x20), p[2*h+1], p[2*h], low)
		store(low, at(to, 32*h))
	}
	for h := range 2 {
		VPERM2I128(U8(0x31), p[2*h+1], p[2*h], high)
		store(high, indexed(to, half, 1, 32*h))
	}
}
