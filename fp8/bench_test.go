package fp8

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Run the benchmarks with
//
//	go test -run '^$' -bench . -count 10 ./fp8 | tee new.txt && benchstat -col /kernel new.txt
//
// This compares each kernel with copy, which copies as many bytes of results from memory to the
// same place. Bytes are those of the results.
//
// Measured on one core of an AMD EPYC 9004 (Zen 4), as multiples of copy in the same run, others
// idle:
//
//	                                        copy      generic  avx2   avx512
//	decode to BF16, 1 MiB at a time         18 GB/s   0.26     1.5    1.6
//	decode to F16, 1 MiB                    20 GB/s   0.27     0.35   1.1
//	decode to F32, 1 MiB                    20 GB/s   0.14     1.1    1.3
//	decode to BF16, a scale for each column 20 GB/s   0.05     0.3    0.4
//	transpose 2048 × 7168 bytes             18 GB/s   0.07     0.5    0.55
//	an expert: transpose, decode (1 core)   18 GB/s   0.05     0.6    0.65
//	scales of BF16                          20 GB/s   0.07     0.7    0.85
//	quantize BF16                           18 GB/s   0.05     0.3    0.35
//
// Decoding and transposing by AVX-512 are bound by memory. In the caches they reach 42 and 37 GB/s.
//
// Groups to BF16 on one core of an Intel Xeon of the generation of Sapphire Rapids, with other work
// on the machine:
//
//	                                        copy      generic  avx2   avx512
//	E2M1 in groups of 16 (NVFP4)            11 GB/s   0.1      0.55   1.3
//	E2M1 in groups of 32 (MXFP4)            11 GB/s   0.2      0.9    1.3
//	E2M1, a scale for each column           10 GB/s   0.15     0.9    0.8
//	INT4 in groups of 32                    10 GB/s   0.12     0.85   1.5
//	INT4 in groups of 128                   10 GB/s   0.3      1.4    2
//	INT4 in groups of 128 with zero points  10 GB/s   0.3      1.4    1.4
//	NF4 in groups of 64                     10 GB/s   0.25     1.4    1.9
//	INT4 of AWQ, after Unpack               10 GB/s   0.1      0.8    0.9
//	INT8, a scale for each row              10 GB/s   0.35     1      1.2
//	INT8 in groups of 128                   10 GB/s   0.1      0.8    1.1
//	INT8 in groups of 32 with zero points   10 GB/s   0.13     0.9    1.3
//	E4M3FN in groups of 32 (MXFP8)          10 GB/s   0.28     0.85   0.86

// source is larger than the caches, so that it is read from memory.
var source []byte

func benchmarkSource(b *testing.B) []byte {
	b.Helper()
	if source == nil {
		r := rand.New(rand.NewPCG(1, 1))
		source = make([]byte, 192<<20)
		for i := range source[:1<<20] {
			for source[i] = 0x7f; source[i]&0x7f == 0x7f; {
				source[i] = byte(r.Uint32())
			}
		}
		for i := 1 << 20; i < len(source); i += 1 << 20 {
			copy(source[i:], source[:1<<20])
		}
	}
	return source
}

// weights returns 64 MiB of values with the distribution of weights.
func weights(f Format) []byte {
	r := rand.New(rand.NewPCG(2, 2))
	b := make([]byte, 64<<20)
	for i := 0; i < 1<<20; i += f.Size() {
		put(b[i:], f, float32(0.02*r.NormFloat64()))
	}
	for i := 1 << 20; i < len(b); i += 1 << 20 {
		copy(b[i:], b[:1<<20])
	}
	return b
}

// alternate benchmarks the kernels of each implementation, and copying.
func alternate(b *testing.B, bytes int, copying, kernel func(i int)) {
	run := func(name string, f func(i int)) {
		b.Run("kernel="+name, func(b *testing.B) {
			b.SetBytes(int64(bytes))
			for i := 0; b.Loop(); i++ {
				f(i)
			}
		})
	}
	run("copy", copying)
	for i := generic; i <= best(); i++ {
		using = i
		pin(true)
		run(i.String(), kernel)
	}
	using = best()
	pin(false)
}

// BenchmarkDequantize decodes rows of 7168 columns in blocks of 128 × 128 into the same buffer each
// time.
func BenchmarkDequantize(b *testing.B) {
	src := benchmarkSource(b)
	const cols = 7168
	scales := make([]float32, 8*56)
	for i := range scales {
		scales[i] = 1e-4 * float32(i+1)
	}
	for _, out := range []Format{BF16, F16, F32} {
		for _, size := range []int{16 << 10, 128 << 10, 1 << 20} {
			rows := max(1, size/out.Size()/cols)
			n := rows * cols
			dst := make([]byte, n*out.Size())
			b.Run(fmt.Sprintf("out=%v/size=%dK", out, size>>10), func(b *testing.B) {
				alternate(b, len(dst), func(i int) {
					copy(dst, src[i%(len(src)/len(dst))*len(dst):])
				}, func(i int) {
					codes := src[i%(len(src)/n)*n:][:n]
					Dequantize(dst, cols*out.Size(), out,
						&Matrix{Format: E4M3FN, Codes: codes, Stride: cols, Rows: rows, Cols: cols,
							Block: [2]int{128, 128}, Scales: scales, ScaleStride: 56})
				})
			})
		}
	}
}

// BenchmarkDequantizeOther has other blocks: a whole row, columns (a transposed row), and those of
// MX formats.
func BenchmarkDequantizeOther(b *testing.B) {
	src := benchmarkSource(b)
	const rows, cols, n = 64, 7168, 64 * 7168
	scales := make([]float32, rows*cols)
	for i := range scales {
		scales[i] = 1e-4 * float32(i%99+1)
	}
	dst := make([]byte, 2*n)
	for _, block := range [][2]int{{1, 0}, {0, 1}, {1, 32}, {128, 64}} {
		if block[1] == 32 {
			scales = gridOf(E8M0, rows*cols)
		}
		b.Run(fmt.Sprintf("block=%dx%d", block[0], block[1]), func(b *testing.B) {
			alternate(b, len(dst), func(i int) {
				copy(dst, src[i%(len(src)/len(dst))*len(dst):])
			}, func(i int) {
				codes := src[i%(len(src)/n)*n:][:n]
				Dequantize(dst, 2*cols, BF16,
					&Matrix{Format: E4M3FN, Codes: codes, Stride: cols, Rows: rows, Cols: cols,
						Block: block, Scales: scales, ScaleStride: cols})
			})
		})
	}
}

// BenchmarkTranspose transposes matrices of the size of an expert's.
func BenchmarkTranspose(b *testing.B) {
	src := benchmarkSource(b)
	dst := make([]byte, 2048*7168*2)
	for _, size := range []int{1, 2, 4} {
		for _, shape := range [][2]int{{2048, 7168}, {7168, 2048}} {
			rows, cols := shape[0], shape[1]
			n := rows * cols * size
			if n > len(dst) {
				dst = make([]byte, n)
			}
			b.Run(fmt.Sprintf("size=%d/shape=%dx%d", size, rows, cols), func(b *testing.B) {
				alternate(b, n, func(i int) { copy(dst, src[i%(len(src)/n)*n:][:n]) },
					func(i int) {
						Transpose(dst[:n], rows*size, src[i%(len(src)/n)*n:][:n], cols*size, rows,
							cols, size)
					})
			})
		}
	}
}

// BenchmarkExpert does the work for an expert's matrix in the native layout. Two goroutines
// transpose its codes. Then they decode the rows, each into a buffer of 1 MiB. copy is one
// goroutine, 1 MiB at a time.
func BenchmarkExpert(b *testing.B) {
	src := benchmarkSource(b)
	const piece = 1 << 20
	dst := [2][]byte{make([]byte, piece), make([]byte, piece)}
	for _, shape := range [][2]int{{2048, 7168}, {7168, 2048}} {
		rows, cols := shape[0], shape[1]
		n := rows * cols
		turned := make([]byte, n)
		scales := CreateScaleInvForWeight(cols, rows, BlockSize)
		b.Run(fmt.Sprintf("shape=%dx%d", rows, cols), func(b *testing.B) {
			alternate(b, 2*n, func(i int) {
				for at := 0; at < 2*n; at += piece {
					copy(dst[0], src[(2*n*(i%3)+at):])
				}
			}, func(i int) {
				codes := src[i%(len(src)/n)*n:][:n]
				both(func(k int) {
					half := rows / 2
					Transpose(turned[k*half:], rows, codes[k*half*cols:], cols, half, cols, 1)
				})
				both(func(k int) {
					step := piece / 2 / rows
					for r := k * cols / 2; r < (k+1)*cols/2; r += step {
						m := &Matrix{Format: E4M3FN, Codes: turned[r*rows:], Stride: rows,
							Rows: min(step, (k+1)*cols/2-r), Cols: rows, Row: r,
							Block: [2]int{128, 128}, Scales: scales, ScaleStride: rows / 128}
						Dequantize(dst[k], 2*rows, BF16, m)
					}
				})
			})
		})
	}
}

// both calls f(0) and f(1) concurrently.
func both(f func(k int)) {
	done := make(chan struct{})
	go func() {
		f(1)
		close(done)
	}()
	f(0)
	<-done
}

// BenchmarkQuantize computes the scales of blocks of 128 × 128 and quantizes with them. Bytes are
// those of the values.
func BenchmarkQuantize(b *testing.B) {
	const rows, cols = 128, 4096
	for _, from := range []Format{BF16, F32} {
		src := weights(from)
		n := rows * cols * from.Size()
		codes, into := make([]byte, rows*cols), make([]byte, n)
		m := &Plain{Format: from, Stride: cols * from.Size(), Rows: rows, Cols: cols,
			Block: [2]int{128, 128}, Scales: make([]float32, 32), ScaleStride: 32}
		copying := func(i int) { copy(into, src[i%(len(src)/n)*n:][:n]) }
		b.Run(fmt.Sprintf("from=%v/what=scales", from), func(b *testing.B) {
			alternate(b, n, copying, func(i int) {
				m.Data = src[i%(len(src)/n)*n:][:n]
				BlockScales(m)
			})
		})
		b.Run(fmt.Sprintf("from=%v/what=codes", from), func(b *testing.B) {
			alternate(b, n, copying, func(i int) {
				m.Data = src[i%(len(src)/n)*n:][:n]
				Quantize(codes, cols, m)
			})
		})
	}
}

// BenchmarkConvert converts between the plain formats.
func BenchmarkConvert(b *testing.B) {
	src := benchmarkSource(b)
	const n = 1 << 18
	dst := make([]byte, 4*n)
	for _, c := range [][2]Format{{F32, BF16}, {F32, F16}, {BF16, F32}, {F16, F32}, {BF16, F16}} {
		in, out := n*c[0].Size(), n*c[1].Size()
		b.Run(fmt.Sprintf("from=%v/to=%v", c[0], c[1]), func(b *testing.B) {
			alternate(b, out, func(i int) { copy(dst[:out], src[i%(len(src)/out)*out:]) },
				func(i int) { Convert(dst[:out], c[1], src[i%(len(src)/in)*in:], c[0], n) })
		})
	}
}

// gridOf returns n scales as they are in checkpoints: of E4M3FN times one factor, powers of two, or
// of BF16.
func gridOf(f Format, n int) []float32 {
	r := rand.New(rand.NewPCG(3, 3))
	grid := make([]float32, n)
	for i := range grid {
		switch f {
		case E4M3FN:
			grid[i] = f.Values()[64+r.IntN(63)] * 3.1e-5
		case E8M0:
			grid[i] = f.Values()[112+r.IntN(12)]
		default:
			grid[i] = FromBF16(RoundBF16(float32(0.002 + 0.02*r.Float64())))
		}
	}
	return grid
}

// BenchmarkDequantizeGroups has the codings and groups of formats with codes of 4 and 8 bits.
func BenchmarkDequantizeGroups(b *testing.B) {
	src := benchmarkSource(b)
	const rows, cols = 64, 7168
	zeros, dst := make([]float32, rows*cols), make([]byte, 4*rows*cols)
	for i := range zeros {
		zeros[i] = float32(i % 15)
	}
	e2m1, int4 := &fourBits, &offset4
	for _, c := range []struct {
		name    string
		out     Format
		coding  Coding
		values  *[16]float32
		block   [2]int
		scale   Format
		hasZero bool
	}{
		{"E2M1_16", BF16, Nibbles, e2m1, [2]int{1, 16}, E4M3FN, false},
		{"E2M1_32", BF16, Nibbles, e2m1, [2]int{1, 32}, E8M0, false},
		{"E2M1_32", F16, Nibbles, e2m1, [2]int{1, 32}, E8M0, false},
		{"E2M1_32", F32, Nibbles, e2m1, [2]int{1, 32}, E8M0, false},
		{"E2M1_columns", BF16, LowBytes, e2m1, [2]int{32, 1}, E8M0, false},
		{"INT4_32", BF16, Nibbles, int4, [2]int{1, 32}, BF16, false},
		{"INT4_32_zeros", BF16, Nibbles, int4, [2]int{1, 32}, BF16, true},
		{"INT4_128", BF16, Nibbles, int4, [2]int{1, 128}, BF16, false},
		{"INT4_128_zeros", BF16, Nibbles, int4, [2]int{1, 128}, BF16, true},
		{"NF4_64", BF16, HighNibbles, &normal4, [2]int{1, 64}, BF16, false},
		{"AWQ_128", BF16, LowBytes, int4, [2]int{128, 1}, BF16, true},
		{"INT8_channel", BF16, Int8, nil, [2]int{1, 0}, BF16, false},
		{"INT8_128", BF16, Int8, nil, [2]int{1, 128}, BF16, false},
		{"INT8_32_zeros", BF16, Int8, nil, [2]int{1, 32}, BF16, true},
		{"Offset8_128", BF16, Offset8, nil, [2]int{1, 128}, BF16, false},
		{"Offset8_columns", BF16, Offset8, nil, [2]int{128, 1}, BF16, true},
		{"E2M1_50", BF16, Nibbles, e2m1, [2]int{1, 50}, BF16, false},
	} {
		m := Groups{Coding: c.coding, Values: c.values, Stride: c.coding.size(0, cols), Rows: rows,
			Cols: cols, Block: c.block, Scales: gridOf(c.scale, rows*cols), ScaleStride: cols}
		if c.hasZero {
			m.Zeros = zeros
		}
		n, in := rows*cols*c.out.Size(), rows*m.Stride
		b.Run(fmt.Sprintf("what=%s/to=%v", c.name, c.out), func(b *testing.B) {
			alternate(b, n, func(i int) { copy(dst[:n], src[i%(len(src)/n)*n:]) }, func(i int) {
				m.Codes = src[i%(len(src)/in)*in:][:in]
				DequantizeGroups(dst[:n], cols*c.out.Size(), c.out, &m)
			})
		})
	}
}

// BenchmarkUnpack writes a byte for each code.
func BenchmarkUnpack(b *testing.B) {
	src := benchmarkSource(b)
	const n = 1 << 18
	dst := make([]byte, n)
	copying := func(i int) { copy(dst, src[i%(len(src)/n)*n:]) }
	for _, p := range packings {
		b.Run(fmt.Sprintf("bits=%d/order=%d", p.bits, p.order), func(b *testing.B) {
			alternate(b, n, copying, func(i int) {
				Unpack(dst, src[i%(len(src)/n)*n:], 0, p.bits, p.order)
			})
		})
	}
	for _, word := range []int{1, 4} {
		b.Run(fmt.Sprintf("down/word=%d", word), func(b *testing.B) {
			alternate(b, n, copying, func(i int) {
				at := i % (len(src) / n / 8) * n * 8
				UnpackDown(dst, src[at:], src[at+4*n:], word, 5, 3)
			})
		})
	}
}
