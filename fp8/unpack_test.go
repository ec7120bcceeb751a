package fp8

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// oracleUnpack reads code i of a stream bit by bit.
func oracleUnpack(src []byte, i, bits int, order Order) (code byte) {
	switch order {
	case HighFirst:
		return src[i/2] >> (4 - i%2*4) & 15
	case Interleaved:
		word := binary.LittleEndian.Uint32(src[i/8*4:])
		return byte(word >> (4 * [8]int{0, 4, 1, 5, 2, 6, 3, 7}[i%8]) & 15)
	}
	for k := range bits {
		at := i*bits + k
		code |= src[at/8] >> (at % 8) & 1 << k
	}
	return code
}

// packings are all widths and orders.
var packings = []struct {
	bits  int
	order Order
}{{1, LowFirst}, {2, LowFirst}, {3, LowFirst}, {4, LowFirst}, {5, LowFirst}, {6, LowFirst},
	{7, LowFirst}, {8, LowFirst}, {4, HighFirst}, {4, Interleaved}}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestUnpackMatchesOracle(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(41, 42))
		for _, p := range packings {
			for n := range 300 {
				first := r.IntN(40)
				src := randomBytes(r, PackedSize(first+n, p.bits, p.order)+r.IntN(12))
				got := bytes.Repeat([]byte{canary}, n+2)
				Unpack(got[1:1+n], src, first, p.bits, p.order)
				for i, g := range got {
					want := byte(canary)
					if i > 0 && i <= n {
						want = oracleUnpack(src, first+i-1, p.bits, p.order)
					}
					if g != want {
						t.Fatalf("%d codes of %d bits in order %d from %d: code %d is %#x, not %#x",
							n, p.bits, p.order, first, i-1, g, want)
					}
				}
			}
		}
	})
}

func TestPackedSizeHoldsTheLastCode(t *testing.T) {
	for _, p := range packings {
		for n := 1; n < 70; n++ {
			size := PackedSize(n, p.bits, p.order)
			if p.order == Interleaved && size != (n+7)/8*4 ||
				p.order != Interleaved && size != (n*p.bits+7)/8 {
				t.Errorf("%d codes of %d bits in order %d: %d bytes", n, p.bits, p.order, size)
			}
		}
	}
}

func TestUnpackDownMatchesOracle(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(43, 44))
		for _, word := range []int{1, 4} {
			for bits := 1; bits <= 8; bits++ {
				for shift := range 8 * word {
					checkUnpackDown(t, r, r.IntN(150), word, shift, bits)
				}
			}
		}
	})
}

// checkUnpackDown builds each column's bits from the two words.
func checkUnpackDown(t *testing.T, r *rand.Rand, n, word, shift, bits int) {
	t.Helper()
	low, high := randomBytes(r, n*word+r.IntN(3)), randomBytes(r, n*word+r.IntN(3))
	got := bytes.Repeat([]byte{canary}, n+2)
	if shift+bits <= 8*word && r.IntN(2) == 0 {
		high = nil
	}
	UnpackDown(got[1:1+n], low, high, word, shift, bits)
	for i := range n {
		column := append([]byte{}, low[i*word:][:word]...)
		if high != nil {
			column = append(column, high[i*word:][:word]...)
		}
		var want byte
		for k := range bits {
			want |= column[(shift+k)/8] >> ((shift + k) % 8) & 1 << k
		}
		if got[1+i] != want {
			t.Fatalf("%d codes of %d bits at bit %d of words of %d bytes: code %d is %#x, want %#x",
				n, bits, shift, word, i, got[1+i], want)
		}
	}
	if got[0] != canary || got[n+1] != canary {
		t.Fatalf("%d codes of %d bits at bit %d: bytes beyond them changed", n, bits, shift)
	}
}

func TestUnpackChecksItsContract(t *testing.T) {
	b := make([]byte, 8)
	for want, call := range map[string]func(){
		"codes of 0 bits":          func() { Unpack(b, b, 0, 0, LowFirst) },
		"codes of 9 bits":          func() { Unpack(b, b, 0, 9, LowFirst) },
		"codes of 3 bits in order": func() { Unpack(b, b, 0, 3, HighFirst) },
		"in order 3":               func() { Unpack(b, b, 0, 4, Interleaved+1) },
		"from code -1":             func() { Unpack(b, b, -1, 4, LowFirst) },
		"need 4 bytes, have 3":     func() { Unpack(b, b[:3], 0, 4, LowFirst) },
		"need 8 bytes, have 7":     func() { Unpack(b, b[:7], 1, 4, Interleaved) },
		"words of 2 bytes":         func() { UnpackDown(b, b, b, 2, 0, 4) },
		"at bit 8":                 func() { UnpackDown(b, b, b, 1, 8, 4) },
		"at bit -1":                func() { UnpackDown(b, b, b, 1, -1, 4) },
		"in 7 and 8":               func() { UnpackDown(b, b[:7], b, 1, 0, 4) },
		"in 8 and 7":               func() { UnpackDown(b, b, b[:7], 1, 5, 4) },
		"in 8 and 0":               func() { UnpackDown(b[:2], b, nil, 4, 30, 3) },
	} {
		mustPanic(t, want, call)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("sixteen bytes or more of codes"), byte(3), byte(2))
	f.Fuzz(func(t *testing.T, src []byte, packing, first byte) {
		p := packings[int(packing)%len(packings)]
		n := 0
		for PackedSize(int(first)+n+1, p.bits, p.order) <= len(src) {
			n++
		}
		dst := make([]byte, n)
		if n > 0 {
			Unpack(dst, src, int(first), p.bits, p.order)
		}
		for i, got := range dst {
			if want := oracleUnpack(src, int(first)+i, p.bits, p.order); got != want {
				t.Fatalf("code %d is %#x, want %#x", i, got, want)
			}
		}
	})
}
