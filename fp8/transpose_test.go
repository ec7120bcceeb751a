package fp8

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func oracleTranspose(dst []byte, dstStride int, src []byte, srcStride int, rows, cols, size int) {
	for r := range rows {
		for c := range cols {
			for i := range size {
				dst[c*dstStride+r*size+i] = src[r*srcStride+c*size+i]
			}
		}
	}
}

func checkTranspose(t *testing.T, r *rand.Rand, rows, cols, size int) {
	t.Helper()
	srcStride, dstStride := cols*size+r.IntN(20), rows*size+r.IntN(20)
	srcLen, dstLen := extent("", rows, srcStride, cols*size), extent("", cols, dstStride, rows*size)
	src := make([]byte, srcLen+8)[r.IntN(8):][:srcLen]
	for i := range src {
		src[i] = byte(r.Uint32())
	}
	got, want := bytes.Repeat([]byte{canary}, dstLen+16), bytes.Repeat([]byte{canary}, dstLen+16)
	at := r.IntN(8)
	Transpose(got[at:][:dstLen], dstStride, src, srcStride, rows, cols, size)
	oracleTranspose(want[at:], dstStride, src, srcStride, rows, cols, size)
	if !bytes.Equal(got, want) {
		t.Fatalf("%d × %d elements of %d bytes, %d and %d bytes apart: wrong",
			rows, cols, size, srcStride, dstStride)
	}
}

func TestTransposeMatchesOracle(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for _, size := range []int{1, 2, 4, 8} {
			for range 60 {
				checkTranspose(t, r, r.IntN(150), r.IntN(150), size)
			}
			for rows := range 20 {
				for cols := range 20 {
					checkTranspose(t, r, rows, cols, size)
				}
			}
		}
	})
}

// TestTransposeStreams has results larger than the caches, which are written past them.
func TestTransposeStreams(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(25, 26))
		for _, size := range []int{1, 2, 4, 8} {
			rows, cols := 1100/size, 1030
			stride := (rows*size + 63) &^ 63
			src := make([]byte, rows*cols*size)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			n := (cols-1)*stride + rows*size
			got, want := aligned(n+64), bytes.Repeat([]byte{canary}, n+64)
			Transpose(got[:n], stride, src, cols*size, rows, cols, size)
			oracleTranspose(want, stride, src, cols*size, rows, cols, size)
			if !bytes.Equal(got, want) {
				t.Errorf("elements of %d bytes: wrong", size)
			}
		}
	})
}

// aligned returns n canaries that begin at a cache line.
func aligned(n int) []byte {
	b := bytes.Repeat([]byte{canary}, n+64)
	return b[-uintptr(unsafe.Pointer(&b[0]))%64:][:n]
}
