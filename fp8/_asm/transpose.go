package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// How a square is transposed. Within lanes of 16 bytes: number the registers and the elements of a lane in binary; one
// round of unpacking register i with register i + half rotates these bits by one, so that after as many rounds as a
// register number has bits, elements have become registers. Then what belongs together still lies in the lanes of
// several groups of registers, which are put together at last.

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

func newTransposer(name string, tile string) *transposer {
	TEXT(name, NOSPLIT, "func(dst *byte, dstStride, dstStep int, src *byte, srcStride, srcStep, n int, scratch *byte)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s transposes n tiles of %s, which begin dstStep and srcStep bytes apart.", name, tile))
	return &transposer{pointer("dst"), pointer("dstStride"), pointer("dstStep"), pointer("src"), pointer("srcStride"), pointer("srcStep"), pointer("n"), pointer("scratch")}
}

func transposeAVX512() {
	for _, size := range []int{1, 2, 4, 8} {
		tilesAVX512(size, false)
		tilesAVX512(size, true)
	}
}

// tilesAVX512 transposes squares of 64 × 64 bytes: four groups of 16/size rows.
func tilesAVX512(size int, stream bool) {
	name, store := fmt.Sprintf("transposeTiles%dAVX512", size), VMOVDQU64
	if stream {
		name, store = fmt.Sprintf("streamTiles%dAVX512", size), func(ops ...Op) { VMOVNTDQ(ops[0], ops[1]) }
	}
	t := newTransposer(name, fmt.Sprintf("%d × %d elements of %d bytes", 64/size, 64/size, size))
	rows := 16 / size
	from, to, i, quarter, three := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(t.dstStride, quarter)
	IMUL3Q(U8(rows), quarter, quarter)
	LEAQ(indexed(quarter, quarter, 2, 0), three)

	Label("tile")
	TESTQ(t.n, t.n)
	JZ(LabelRef("done"))
	MOVQ(t.src, from)
	MOVQ(t.scratch, to)
	MOVQ(U32(4), i)
	Label("group")
	var group []VecVirtual
	for range rows {
		z := ZMM()
		VMOVDQU64(at(from, 0), z)
		PREFETCHT0(at(from, 64)) // the next column of tiles: the source may come from memory
		ADDQ(t.srcStride, from)
		group = append(group, z)
	}
	for j, z := range rounds(group, size, ZMM) {
		VMOVDQU64(z, at(to, 64*j))
	}
	ADDQ(I32(64*rows), to)
	DECQ(i)
	JNZ(LabelRef("group"))

	MOVQ(t.scratch, from)
	MOVQ(t.dst, to)
	MOVQ(U32(uint32(rows)), i)
	Label("columns")
	for l, z := range lanesAVX512(from, 64*rows) {
		m := []Mem{at(to, 0), indexed(to, quarter, 1, 0), indexed(to, quarter, 2, 0), indexed(to, three, 1, 0)}[l]
		store(z, m)
	}
	ADDQ(U8(64), from)
	ADDQ(t.dstStride, to)
	DECQ(i)
	JNZ(LabelRef("columns"))
	ADDQ(t.srcStep, t.src)
	ADDQ(t.dstStep, t.dst)
	DECQ(t.n)
	JMP(LabelRef("tile"))
	Label("done")
	if stream {
		SFENCE()
	}
	VZEROUPPER()
	RET()
}

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

// tilesAVX2 transposes oblongs of 64/size rows and 32/size columns: groups of eight rows.
func tilesAVX2(size int, stream bool) {
	name, store := fmt.Sprintf("transposeTiles%dAVX2", size), VMOVDQU
	if stream {
		name, store = fmt.Sprintf("streamTiles%dAVX2", size), VMOVNTDQ
	}
	t := newTransposer(name, fmt.Sprintf("%d × %d elements of %d bytes", 64/size, 32/size, size))
	groups := 8 / size
	from, to, i, half := GP64(), GP64(), GP64(), GP64()
	MOVQ(t.dstStride, half)
	SHLQ(U8(map[int]int{1: 4, 2: 3}[size]), half) // columns of a lane

	Label("tile")
	TESTQ(t.n, t.n)
	JZ(LabelRef("done"))
	MOVQ(t.src, from)
	MOVQ(t.scratch, to)
	MOVQ(U32(uint32(groups)), i)
	Label("group")
	var group []VecVirtual
	for range 8 {
		y := YMM()
		VMOVDQU(at(from, 0), y)
		ADDQ(t.srcStride, from)
		group = append(group, y)
	}
	for j, y := range rounds(group, size, YMM) {
		VMOVDQU(y, at(to, 32*j))
	}
	ADDQ(I32(256), to)
	DECQ(i)
	JNZ(LabelRef("group"))

	MOVQ(t.scratch, from)
	MOVQ(t.dst, to)
	MOVQ(U32(8), i)
	Label("columns")
	joinAVX2(size, from, to, half, t.dstStride, store)
	ADDQ(U8(32), from)
	DECQ(i)
	JNZ(LabelRef("columns"))
	ADDQ(t.srcStep, t.src)
	ADDQ(t.dstStep, t.dst)
	DECQ(t.n)
	JMP(LabelRef("tile"))
	Label("done")
	if stream {
		SFENCE()
	}
	VZEROUPPER()
	RET()
}

// joinAVX2 writes the columns that one register of each group holds parts of: of bytes two in each lane, of words one.
func joinAVX2(size int, from, to, half, stride GPVirtual, store func(a, b Op)) {
	var parts [][]VecVirtual // for each column of a lane: what lies in both lanes
	switch size {
	case 1:
		parts = make([][]VecVirtual, 2)
		for g := 0; g < 8; g += 2 {
			a := YMM()
			VMOVDQU(at(from, 256*g), a)
			for j, f := range unpack[8] {
				y := YMM()
				f(at(from, 256*(g+1)), a, y)
				parts[j] = append(parts[j], y)
			}
		}
	case 2:
		parts = make([][]VecVirtual, 1)
		for g := range 4 {
			y := YMM()
			VMOVDQU(at(from, 256*g), y)
			parts[0] = append(parts[0], y)
		}
	}
	for _, p := range parts {
		low, high := YMM(), YMM()
		for h := range 2 {
			VPERM2I128(U8(0x20), p[2*h+1], p[2*h], low)
			store(low, at(to, 32*h))
		}
		for h := range 2 {
			VPERM2I128(U8(0x31), p[2*h+1], p[2*h], high)
			store(high, indexed(to, half, 1, 32*h))
		}
		ADDQ(stride, to)
	}
}
