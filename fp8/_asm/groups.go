package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The fields of the parameter form of these kernels, which describes how codes lie in bytes.
const (
	nibbleShift = 0 // the right shift of a byte to its first nibble
	byteFlip    = 4 // the bits that turn a byte into a float32, by exclusive or
	byteBias    = 8 // what to subtract from that float32
)

const (
	byGroupSignature = "(dst, codes *byte, n, first, width int, scales, zeros *float32, " +
		"zeroStep int, values *float32, form *[3]uint32)"
	byColumnSignature = "(dst, codes *byte, n int, scales, zeros *float32, zeroStep int, " +
		"values *float32, form *[3]uint32, tame int)"
)

var byGroupDoc = []string{
	"decodes n codes. The first group has first columns, the others have",
	"width. All three are multiples of 16. The zero points are zeroStep bytes apart.",
}

// byColumnDoc returns the documentation of a kernel by column. count describes n.
func byColumnDoc(count string) []string {
	return []string{
		"decodes n codes" + count + " with a scale for each. The zero points are",
		"zeroStep bytes apart: 4, or 0 for 16 that are the same. No result is NaN if tame is",
		"not 0.",
	}
}

func groupsAVX2() {
	for _, out := range formats {
		nibblesByGroupAVX2(out)
		bytesByGroupAVX2(out)
		nibblesByColumnAVX2(out)
		lowsByColumnAVX2(out)
		bytesByColumnAVX2(out)
	}
}

func groupsAVX512() {
	for _, out := range formats {
		nibblesByGroupAVX512(out)
		bytesByGroupAVX512(out)
		for _, coding := range []string{"nibbles", "lows", "bytes"} {
			codesByColumnAVX512(coding, out)
		}
	}
}

// groupArguments are the parameters of a kernel by group.
type groupArguments struct {
	dst, codes, n, first, width GPVirtual
	scales, zeros, zeroStep     GPVirtual
	left                        GPVirtual
}

func loadGroupArguments() *groupArguments {
	return &groupArguments{
		dst: pointer("dst"), codes: pointer("codes"), n: pointer("n"),
		first: pointer("first"), width: pointer("width"),
		scales: pointer("scales"), zeros: pointer("zeros"), zeroStep: pointer("zeroStep"),
		left: GP64(),
	}
}

// each emits a loop over the groups. fill prepares a group. decode decodes that many codes, 32 or
// 16 at a time. Two codes have bytes bytes, and a result has size bytes. Unless slow is nil, it
// decodes 16 codes of a group that begins with a jump to "slow".
func (a *groupArguments) each(bytes, size int, fill func(), decode func(codes int), slow func()) {
	advance := func(codes int) {
		ADDQ(U8(codes/2*bytes), a.codes)
		ADDQ(I32(codes*size), a.dst)
		SUBQ(U8(codes), a.left)
	}
	while("group", a.n, func() {
		minimum(a.left, a.first, a.n)
		SUBQ(a.left, a.n)
		fill()

		Label("loop")
		CMPQ(a.left, U8(32))
		JLT(LabelRef("half"))
		decode(32)
		advance(32)
		JMP(LabelRef("loop"))

		Label("half")
		TESTQ(a.left, a.left)
		JZ(LabelRef("next"))
		decode(16)
		advance(16)
		if slow != nil {
			JMP(LabelRef("next"))
			Label("slow")
			slow()
			advance(16)
			JNZ(LabelRef("slow"))
		}

		Label("next")
		ADDQ(U8(4), a.scales)
		ADDQ(a.zeroStep, a.zeros)
		MOVQ(a.width, a.first)
	})
	VZEROUPPER()
	RET()
}

// slowUnlessFinite jumps to "slow" if the scale or the zero point of a group is infinite or NaN.
func (a *groupArguments) slowUnlessFinite() {
	for _, p := range []GPVirtual{a.scales, a.zeros} {
		u := GP32()
		MOVL(at(p, 0), u)
		ADDL(u, u) // without the sign
		CMPL(u, U32(infinityF32<<1))
		JCC(LabelRef("slow"))
	}
}

// nibbleShifts loads the shifts that bring the first nibble of a byte to the bottom of an element,
// and the second one to bit up.
func nibbleShifts(up int) (right, left VecVirtual) {
	r := GP32()
	right, left = XMM(), XMM()
	MOVL(at(pointer("form"), nibbleShift), r)
	VMOVD(r, right)
	ADDL(U8(up-4), r)
	VMOVD(r, left)
	return right, left
}

// qword returns a register with 8 bytes in its low half.
func qword(v uint64) VecVirtual {
	r, x := GP64(), XMM()
	MOVQ(U64(v), r)
	VMOVQ(r, x)
	return x
}

// unless emits body, which is left out at run time if v is not 0.
func unless(v GPVirtual, label string, body func()) {
	TESTQ(v, v)
	JNZ(LabelRef(label))
	body()
	Label(label)
}

// codesSize returns the bytes of n codes.
func codesSize(coding string, n int) int {
	if coding == "nibbles" {
		return n / 2
	}
	return n
}
