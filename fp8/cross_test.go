package fp8

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// Each round of TestImplementationsAgree has this many pairs of code and scale.
const crossRows, crossCols = 64, 512

// TestImplementationsAgree compares the kernels with the portable ones over 10^6 or 10^8 random
// pairs of code and scale. Half of the scales have random bits, and half are those of weights.
func TestImplementationsAgree(t *testing.T) {
	if best() == generic {
		return // nothing to compare
	}
	for _, seed := range size.Seeds(t) {
		implementationsAgree(t, seed, size.Count(1_000_000, 100_000_000)/3)
	}
}

func implementationsAgree(t *testing.T, seed uint64, pairs int) {
	const rows, cols = crossRows, crossCols
	rounds := max(16, pairs/(rows*cols)/thinning+1) // 16 rounds include every kind of matrix
	r := rand.New(rand.NewPCG(seed, 22))
	codes, scales := make([]byte, rows*cols), make([]float32, rows*cols)
	want, got := make([]byte, 4*rows*cols), make([]byte, 4*rows*cols)
	defer func(was implementation) { using = was }(using)
	for i := range rounds {
		m := randomPairs(r, codes, scales, i)
		out := []Format{BF16, BF16, F16, F32}[i%4]
		n := rows * cols * out.Size()
		using = generic
		Dequantize(want[:n], cols*out.Size(), out, m)
		for using = avx2; using <= best(); using++ {
			Dequantize(got[:n], cols*out.Size(), out, m)
			if !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("seed %d, round %d: %v to %v, blocks of %v: %v differs from generic",
					seed, i, m.Format, out, m.Block, using)
			}
		}
	}
}

// randomPairs fills codes and scales for round i. Blocks are one row of few columns, or several
// rows of many.
func randomPairs(r *rand.Rand, codes []byte, scales []float32, i int) *Matrix {
	for j := 0; j < len(codes); j += 8 {
		u := r.Uint64()
		for k := range 8 {
			codes[j+k] = byte(u >> (8 * k))
		}
	}
	m := &Matrix{Format: E4M3FN, Codes: codes, Stride: crossCols, Rows: crossRows, Cols: crossCols,
		Block: [][2]int{{1, 1}, {16, 32}, {8, 128}, {64, 1}}[i/4%4], Scales: scales,
		ScaleStride: crossCols}
	if i%16 == 7 {
		m.Format = E5M2
	}
	for j := range m.Scales[:crossCols*ceilDiv(crossRows, m.Block[0])] {
		u := r.Uint32()
		if i&1 == 0 {
			u = u&^(0xff<<23) | (100+u>>23&31)<<23 // 2^-27 to 2^4
		}
		scales[j] = math.Float32frombits(u)
	}
	return m
}

// TestImplementationsAgreeOnGroups does the same for codes of 4 and 8 bits.
func TestImplementationsAgreeOnGroups(t *testing.T) {
	if best() == generic {
		return // nothing to compare
	}
	for _, seed := range size.Seeds(t) {
		implementationsAgreeOnGroups(t, seed, size.Count(1_000_000, 100_000_000)/3)
	}
}

func implementationsAgreeOnGroups(t *testing.T, seed uint64, pairs int) {
	const rows, cols = crossRows, crossCols
	rounds := max(60, pairs/(rows*cols)/thinning+1)
	r := rand.New(rand.NewPCG(seed, 26))
	m := &Groups{Codes: make([]byte, rows*cols), Rows: rows, Cols: cols, ScaleStride: cols}
	scales, zeros := make([]float32, rows*cols), make([]float32, rows*cols)
	want, got := make([]byte, 4*rows*cols), make([]byte, 4*rows*cols)
	defer func(was implementation) { using = was }(using)
	for i := range rounds {
		out := plain[r.IntN(3)]
		m.Coding, m.Values = codings[i%6], tables4[r.IntN(4)]
		m.Block = [][2]int{{1, 16}, {1, 1}, {8, 32}, {64, 1}, {1, 128}}[r.IntN(5)]
		m.Stride = m.Coding.size(0, cols)
		m.Scales, m.Zeros = scales, [][]float32{nil, zeros}[r.IntN(2)]
		randomPairs(r, m.Codes, scales, r.IntN(16))
		for j := range zeros {
			zeros[j] = randomZero(r)
		}
		n := rows * cols * out.Size()
		using = generic
		DequantizeGroups(want[:n], cols*out.Size(), out, m)
		for using = avx2; using <= best(); using++ {
			DequantizeGroups(got[:n], cols*out.Size(), out, m)
			if !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("seed %d, round %d: coding %d to %v, blocks of %v: %v is not generic",
					seed, i, m.Coding, out, m.Block, using)
			}
		}
	}
}

// TestRoundingsAgree compares quantizing and converting over many random bits.
func TestRoundingsAgree(t *testing.T) {
	if best() == generic {
		return // nothing to compare
	}
	const n = 1 << 16
	r := rand.New(rand.NewPCG(size.Seeds(t)[0], 24))
	src, want, got := make([]byte, 4*n), make([]byte, 4*n), make([]byte, 4*n)
	defer func(was implementation) { using = was }(using)
	for i := range 24/thinning + 1 {
		for j := 0; j < 4*n; j += 4 {
			u := r.Uint32()
			if i&1 == 0 {
				u = u&^(0xff<<23) | (110+u>>23&31)<<23
			}
			put(src[j:], F32, math.Float32frombits(u))
		}
		for _, from := range []Format{BF16, F16, F32} {
			m := &Plain{Format: from, Data: src, Rows: 1, Cols: n, Block: [2]int{1, 0},
				Scales: []float32{[]float32{1, 0.01, 3.3e-5}[i%3]}}
			using = generic
			saturated := Quantize(want, n, m)
			amax := Amax(src, from, n)
			for using = avx2; using <= best(); using++ {
				if s := Quantize(got, n, m); s != saturated || !bytes.Equal(got[:n], want[:n]) ||
					Amax(src, from, n) != amax {
					t.Fatalf("round %d: quantizing %v: %v differs from generic", i, from, using)
				}
			}
			for _, to := range []Format{BF16, F16, F32} {
				using = generic
				Convert(want, to, src, from, n)
				for using = avx2; using <= best(); using++ {
					if Convert(got, to, src, from, n); !bytes.Equal(got[:n*to.Size()],
						want[:n*to.Size()]) {
						t.Fatalf("round %d: %v to %v: %v differs from generic", i, from, to, using)
					}
				}
			}
		}
	}
}
