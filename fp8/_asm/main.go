// Command asm writes the assembly of package fp8.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

//go:generate go run . -out ../kernels_amd64.s -stubs ../kernels_amd64.go -pkg fp8

func main() {
	ConstraintExpr("!purego")
	dequantizeAVX512()
	dequantizeAVX2()
	groupsAVX512()
	groupsAVX2()
	unpackNibblesAVX2()
	unpackDownAVX2()
	conversions(convertAVX512)
	conversions(convertAVX2)
	quantizeAVX512()
	quantizeAVX2()
	transposeAVX512()
	transposeAVX2()
	Generate()
}

// The quiet NaNs and the sign of an F32.
const (
	quietBF16 = 0x7fc0
	quietF32  = 0x7fc00000
	signF32   = 0x80000000
)

// ahead is the distance in bytes at which kernels fetch codes from memory.
const ahead = 3072

// formats are the plain formats, as named in functions.
var formats = []string{"BF16", "F16", "F32"}

func size(format string) int {
	if format == "F32" {
		return 4
	}
	return 2
}

func pointer(name string) GPVirtual { return Load(Param(name), GP64()).(GPVirtual) }

func words(v uint32) VecVirtual {
	r, z := GP32(), ZMM()
	MOVL(U32(v), r)
	VPBROADCASTW(r, z)
	return z
}

func dwords(v uint32) VecVirtual {
	r, z := GP32(), ZMM()
	MOVL(U32(v), r)
	VPBROADCASTD(r, z)
	return z
}

func dwordsY(v uint32) VecVirtual {
	r, x, y := GP32(), XMM(), YMM()
	MOVL(U32(v), r)
	VMOVD(r, x)
	VPBROADCASTD(x, y)
	return y
}

// declare begins a function. The first line of its documentation is preceded by its name.
func declare(name, signature string, doc ...string) {
	TEXT(name, NOSPLIT, "func"+signature)
	Pragma("noescape")
	doc = append([]string{name + " " + doc[0]}, doc[1:]...)
	Doc(doc...)
}

// while emits a loop that runs until n is 0.
func while(label string, n GPVirtual, body func()) {
	Label(label)
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body()
	JMP(LabelRef(label))
	Label("done")
}

// each16 emits a loop over n elements, 16 at a time, and then the rest under a mask. step moves the
// pointers by 16 elements.
func each16(n GPVirtual, body func(k Op), step func()) {
	Label("loop")
	CMPQ(n, U8(16))
	JLT(LabelRef("tail"))
	body(nil)
	step()
	SUBQ(U8(16), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body(mask(n))
	Label("done")
	VZEROUPPER()
}

// mask returns a k register with the lowest n bits set.
func mask(n GPVirtual) OpmaskVirtual {
	ones, k := GP64(), K()
	MOVQ(I32(-1), ones)
	BZHIQ(n, ones, ones)
	KMOVQ(ones, k)
	return k
}

func at(base Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

func indexed(base, index Register, scale uint8, disp int) Mem {
	return Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

// minimum sets dst to the smaller of a and b.
func minimum(dst, a, b Op) {
	MOVQ(a, dst)
	CMPQ(b, dst)
	CMOVQLT(b, dst)
}
