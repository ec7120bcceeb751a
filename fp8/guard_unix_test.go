//go:build unix

package fp8

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded is memory between two pages that fault when touched.
type guarded []byte

func newGuarded(t *testing.T, pages int) guarded {
	t.Helper()
	page := syscall.Getpagesize()
	b, err := syscall.Mmap(-1, 0, (pages+2)*page, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(b) })
	for _, guard := range [][]byte{b[:page], b[(pages+1)*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return guarded(b[page : (pages+1)*page])
}

// take returns n bytes at the beginning or at the end of the memory.
func (g guarded) take(n int, atEnd bool) []byte {
	if atEnd {
		return g[len(g)-n:]
	}
	return g[:n:n]
}

// copyOf is take with the bytes of b.
func (g guarded) copyOf(b []byte, atEnd bool) []byte {
	c := g.take(len(b), atEnd)
	copy(c, b)
	return c
}

func (g guarded) floats(f []float32, atEnd bool) []float32 {
	b := g.take(4*len(f), atEnd)
	c := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(f))
	copy(c, f)
	return c
}

// TestNothingBeyondTheBuffers puts each buffer next to a page that faults.
func TestNothingBeyondTheBuffers(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		a, b := newGuarded(t, 64), newGuarded(t, 64)
		c, d := newGuarded(t, 300), newGuarded(t, 300)
		r := rand.New(rand.NewPCG(19, 20))
		for i := range 400/thinning + 1 {
			atEnd := i%2 == 1
			guardDequantize(r, a, b, c, atEnd)
			guardGroups(r, a, b, c, d, atEnd)
			guardUnpack(r, a, b, c, atEnd)
			guardQuantize(r, a, b, c, atEnd)
			guardTranspose(r, a, b, atEnd)
			guardConvert(r, a, b, atEnd)
		}
	})
}

func guardDequantize(r *rand.Rand, a, b, c guarded, atEnd bool) {
	m := randomMatrix(r, 12, 400)
	m.Codes, m.Scales = a.copyOf(m.Codes, atEnd), c.floats(m.Scales, atEnd)
	out := []Format{BF16, F16, F32}[r.IntN(3)]
	stride := m.Cols*out.Size() + r.IntN(3)
	Dequantize(b.take(extent("", m.Rows, stride, m.Cols*out.Size()), atEnd), stride, out, m)
}

func guardGroups(r *rand.Rand, a, b, c, d guarded, atEnd bool) {
	m := randomGroups(r, 12, 400)
	m.Codes, m.Scales = a.copyOf(m.Codes, atEnd), c.floats(m.Scales, atEnd)
	if m.Zeros != nil {
		m.Zeros = d.floats(m.Zeros, atEnd)
	}
	out := plain[r.IntN(3)]
	stride := m.Cols*out.Size() + r.IntN(3)
	DequantizeGroups(b.take(extent("", m.Rows, stride, m.Cols*out.Size()), atEnd), stride, out, m)
}

func guardUnpack(r *rand.Rand, a, b, c guarded, atEnd bool) {
	n, first, bits, order := r.IntN(200), r.IntN(20), 1+r.IntN(8), Order(r.IntN(3))
	if order != LowFirst {
		bits = 4
	}
	Unpack(b.take(n, atEnd), a.take(PackedSize(first+n, bits, order), atEnd), first, bits, order)
	word := []int{1, 4}[r.IntN(2)]
	UnpackDown(b.take(n, atEnd), a.take(n*word, atEnd), c.take(n*word, atEnd), word,
		r.IntN(8*word), bits)
}

func guardQuantize(r *rand.Rand, a, b, c guarded, atEnd bool) {
	m := randomPlain(r, 1+r.IntN(8), 1+r.IntN(200), true)
	m.Data, m.Scales = a.copyOf(m.Data, atEnd), c.floats(m.Scales, atEnd)
	BlockScales(m)
	stride := m.Cols + r.IntN(3)
	Quantize(b.take(extent("", m.Rows, stride, m.Cols), atEnd), stride, m)
}

func guardTranspose(r *rand.Rand, a, b guarded, atEnd bool) {
	rows, cols, size := r.IntN(140), r.IntN(140), 1<<r.IntN(4)
	srcStride, dstStride := cols*size+r.IntN(3), rows*size+r.IntN(3)
	if r.IntN(2) == 0 {
		srcStride, dstStride = cols*size, (rows*size+63)&^63 // the destination may be streamed to
	}
	Transpose(b.take(extent("", cols, dstStride, rows*size), atEnd), dstStride,
		a.take(extent("", rows, srcStride, cols*size), atEnd), srcStride, rows, cols, size)
}

func guardConvert(r *rand.Rand, a, b guarded, atEnd bool) {
	plain := []Format{BF16, F16, F32}
	from, to, n := plain[r.IntN(3)], plain[r.IntN(3)], r.IntN(100)
	Convert(b.take(n*to.Size(), atEnd), to, a.take(n*from.Size(), atEnd), from, n)
}

// TestNothingBeyondWhatIsStreamed does the same for results that bypass the caches.
func TestNothingBeyondWhatIsStreamed(t *testing.T) {
	forEachImplementation(t, func(t *testing.T) {
		const n = 512 * 2176 // whole pages and whole tiles
		a, b := newGuarded(t, 300), newGuarded(t, 300)
		for _, size := range []int{1, 2, 4, 8} {
			for _, atEnd := range []bool{false, true} {
				Transpose(b.take(n, atEnd), 512*size, a.take(n, atEnd), 2176, 512, 2176/size, size)
			}
		}
	})
}
