package expr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

const (
	f8   = safetensors.F8E4M3
	bf16 = safetensors.BF16
	f16  = safetensors.F16
	f32  = safetensors.F32
	e8m0 = safetensors.F8E8M0
)

// blocks is the usual block.
var blocks = [2]int64{128, 128}

// merged makes an expert of the native layout.
func (m *maker) merged(inter, hidden int64, d safetensors.DType) both {
	q := quantized{block: [2]int64{16, 16}, out: d}
	return m.concat(1, m.dequantize(q, inter, hidden).transpose(),
		m.dequantize(q, inter, hidden).transpose())
}

// recipes have awkward shapes on purpose.
var recipes = []struct {
	name string
	make func(m *maker) both
}{
	{"load", func(m *maker) both { return m.load(f32, 7, 11) }},
	{"load scalar", func(m *maker) both { return m.load(f32) }},
	{"load empty", func(m *maker) both { return m.load(bf16, 3, 0) }},
	{"load vector", func(m *maker) both { return m.load(safetensors.I64, 13) }},
	{"load rank 4", func(m *maker) both { return m.load(bf16, 2, 3, 4, 5) }},
	{"load transposed", func(m *maker) both { return m.load(bf16, 70, 33).transpose() }},
	{"load transposed, 1 byte", func(m *maker) both { return m.load(safetensors.U8, 70, 130).transpose() }},
	{"load transposed, 8 bytes", func(m *maker) both { return m.load(safetensors.F64, 9, 17).transpose() }},
	{"load transposed twice", func(m *maker) both { return m.load(bf16, 9, 4).transpose().transpose() }},
	{"load 3-D transposed", func(m *maker) both { return m.load(bf16, 3, 20, 9).transpose() }},
	{"load rank 4 transposed", func(m *maker) both { return m.load(bf16, 2, 3, 4, 5).transpose() }},
	{"load columns", func(m *maker) both { return m.load(bf16, 20, 30).slice(1, 7, 19) }},
	{"load columns far apart", func(m *maker) both { return m.load(f32, 5, 4100).slice(1, 1000, 1010) }},
	{"load columns of 3-D", func(m *maker) both { return m.load(bf16, 4, 6, 10).slice(2, 3, 8).slice(0, 1, 3).slice(1, 2, 6) }},
	{"load row", func(m *maker) both { return m.load(bf16, 20, 30).index(4) }},
	{"load row of columns", func(m *maker) both { return m.load(bf16, 20, 30).transpose().index(4).slice(0, 3, 17) }},
	{"load one of 3-D transposed", func(m *maker) both { return m.load(bf16, 4, 20, 30).slice(2, 10, 20).transpose().index(2) }},
	{"load one of 3-D, then transposed", func(m *maker) both { return m.load(bf16, 4, 20, 30).index(3).slice(1, 15, 30).transpose() }},
	{"load slices of rank 4", func(m *maker) both { return m.load(bf16, 3, 4, 5, 6).slice(1, 1, 3).slice(0, 1, 2).slice(3, 2, 5) }},
	{"load index of rank 4", func(m *maker) both { return m.load(bf16, 3, 4, 5, 6).index(1).transpose() }},
	{"load element", func(m *maker) both { return m.load(bf16, 5, 6).index(1).index(2) }},

	{"multiply to f32", func(m *maker) both { return m.load(f32, 7, 11).multiply(7.874015718698502e-3, f32) }},
	{"multiply to bf16", func(m *maker) both { return m.load(f32, 3, 4100).multiply(-3e-39, bf16) }},
	{"multiply to f16, columns transposed", func(m *maker) both {
		return m.load(f32, 3, 40, 50).multiply(1e-3, f16).transpose().slice(1, 7, 30).index(2)
	}},
	{"multiply codes", func(m *maker) both {
		q := quantized{block: blocks, out: f32}
		return m.dequantize(q, 70, 130).multiply(1./3, bf16).slice(1, 3, 90).transpose()
	}},

	{"swap rows", func(m *maker) both { return m.load(bf16, 24, 5).swapRows(3, 2) }},
	{"swap rows to halves", func(m *maker) both { return m.load(bf16, 24, 5).swapRows(3, 4) }},
	{"swap rows of all", func(m *maker) both { return m.load(f32, 30, 7).swapRows(1, 2) }},
	{"swap rows of all to halves", func(m *maker) both { return m.load(f32, 30, 7).swapRows(1, 15) }},
	{"swap rows in threes", func(m *maker) both { return m.load(bf16, 2*3*5, 4).swapRows(2, 5) }},
	{"swap rows that are far apart", func(m *maker) both { return m.load(f32, 24, 1100).swapRows(2, 4) }},
	{"swap rows of a vector", func(m *maker) both { return m.load(bf16, 48).swapRows(3, 2) }},
	{"swap rows of a part of a vector", func(m *maker) both { return m.load(f32, 48).swapRows(2, 12).slice(0, 5, 43) }},
	{"swap rows of half a vector", func(m *maker) both { return m.load(f32, 48).swapRows(4, 6).slice(0, 12, 36) }},
	{"swap rows of bytes", func(m *maker) both { return m.load(safetensors.U8, 12).swapRows(1, 3).index(7) }},
	{"swap rows of rank 3", func(m *maker) both { return m.load(bf16, 12, 3, 5).swapRows(2, 3) }},
	{"swap rows of rank 3, transposed", func(m *maker) both {
		return m.load(bf16, 12, 3, 5).swapRows(2, 2).transpose().slice(1, 1, 4).index(5)
	}},
	{"swap rows of rank 4", func(m *maker) both { return m.load(bf16, 12, 2, 3, 4).swapRows(1, 3).slice(0, 2, 9) }},
	{"swap rows, transposed", func(m *maker) both { return m.load(bf16, 24, 50).swapRows(2, 2).transpose() }},
	{"swap rows, columns transposed", func(m *maker) both {
		return m.load(bf16, 24, 50).swapRows(2, 6).slice(1, 3, 40).transpose().slice(1, 5, 21)
	}},
	{"swap rows of a transposition", func(m *maker) both { return m.load(bf16, 50, 24).transpose().swapRows(2, 2) }},
	{"swap rows, heads", func(m *maker) both { return m.load(bf16, 40, 6).swapRows(5, 4).slice(0, 8, 32) }},
	{"swap rows, part of a head", func(m *maker) both { return m.load(bf16, 40, 6).swapRows(5, 4).slice(0, 3, 33) }},
	{"swap rows, one", func(m *maker) both { return m.load(bf16, 40, 6).swapRows(5, 2).index(27) }},
	{"swap rows of codes", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{16, 16}}, 64, 40).swapRows(4, 2)
	}},
	{"swap rows of codes, cast", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{16, 16}}, 64, 40).swapRows(4, 8).cast(f16)
	}},
	{"swap rows of parts", func(m *maker) both {
		return m.concat(1, m.load(bf16, 24, 5).swapRows(2, 3), m.load(bf16, 24, 3))
	}},
	{"swap rows twice", func(m *maker) both { return m.load(bf16, 24, 5).swapRows(3, 2).swapRows(2, 3) }},

	{"product", func(m *maker) both { return m.load(bf16, 7, 11).product(m.load(bf16, 7)) }},
	{"product of F16", func(m *maker) both { return m.load(f16, 7, 11).product(m.load(f16, 7)) }},
	{"product of F32", func(m *maker) both { return m.load(f32, 7, 11).product(m.load(f32, 7)) }},
	{"product of BF16 by F16", func(m *maker) both { return m.load(bf16, 7, 11).product(m.load(f16, 7)) }},
	{"product of F16 by BF16", func(m *maker) both { return m.load(f16, 7, 11).product(m.load(bf16, 7)) }},
	{"product of F32 by F16", func(m *maker) both { return m.load(f32, 3, 4100).product(m.load(f16, 3)) }},
	{"product of a vector", func(m *maker) both { return m.load(bf16, 37).product(m.load(f32, 37)) }},
	{"product of a part of a vector", func(m *maker) both {
		return m.load(f16, 37).product(m.load(f16, 37)).slice(0, 3, 30)
	}},
	{"product of a number", func(m *maker) both { return m.load(f16, 9).product(m.load(f16, 9)).index(4) }},
	{"product of one entry", func(m *maker) both {
		return m.load(bf16, 1, 9, 4).product(m.load(bf16, 1)).index(0).transpose()
	}},
	{"product of rank 3", func(m *maker) both { return m.load(bf16, 5, 6, 7).product(m.load(bf16, 5)) }},
	{"product of rank 3, transposed", func(m *maker) both {
		return m.load(bf16, 5, 6, 7).product(m.load(bf16, 5)).transpose().slice(0, 1,
			4).slice(2, 1, 5)
	}},
	{"product of rank 3, one", func(m *maker) both {
		return m.load(bf16, 5, 6, 7).product(m.load(f32, 5)).index(3).slice(0, 1,
			5).transpose().index(2)
	}},
	{"product of rank 4", func(m *maker) both { return m.load(f16, 3, 2, 4, 5).product(m.load(f16, 3)).slice(1, 1, 2).index(1) }},
	{"product, transposed", func(m *maker) both { return m.load(bf16, 30, 20).product(m.load(bf16, 30)).transpose() }},
	{"product of nothing", func(m *maker) both { return m.load(bf16, 0, 20).product(m.load(bf16, 0)) }},
	{"product of codes", func(m *maker) both {
		q := quantized{block: [2]int64{16, 16}}
		return m.dequantize(q, 3, 20, 40).product(m.load(bf16, 3)).cast(f16)
	}},
	{"product by a slice", func(m *maker) both {
		return m.load(bf16, 6, 40).product(m.load(bf16, 6, 9).transpose().index(3)).slice(0, 1, 5)
	}},

	{"dequantize 1×1", func(m *maker) both { return m.dequantize(quantized{block: blocks}, 1, 1) }},
	{"dequantize 1×300", func(m *maker) both { return m.dequantize(quantized{block: blocks}, 1, 300) }},
	{"dequantize 300×1", func(m *maker) both { return m.dequantize(quantized{block: blocks, out: f32}, 300, 1).transpose() }},
	{"dequantize 200×100", func(m *maker) both { return m.dequantize(quantized{block: blocks}, 200, 100) }},
	{"dequantize 200×100 transposed", func(m *maker) both { return m.dequantize(quantized{block: blocks}, 200, 100).transpose() }},
	{"dequantize empty", func(m *maker) both { return m.dequantize(quantized{block: blocks}, 0, 300) }},
	{"dequantize larger grid", func(m *maker) both { return m.dequantize(quantized{block: blocks, grid: []int64{4, 3}}, 200, 100) }},
	{"dequantize larger grid transposed", func(m *maker) both {
		return m.dequantize(quantized{block: blocks, grid: []int64{4, 3}}, 200, 150).transpose()
	}},
	{"dequantize odd block", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{25, 50}, scale: bf16, out: f16}, 77, 130)
	}},
	{"dequantize E5M2", func(m *maker) both {
		return m.dequantize(quantized{block: blocks, codes: safetensors.F8E5M2, scale: f16}, 50,
			140)
	}},
	{"dequantize E8M0", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{1, 32}, scale: e8m0, out: f32}, 5, 100)
	}},
	{"dequantize exponents as bytes", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{1, 32}, scale: safetensors.U8}, 5, 100)
	}},
	{"dequantize exponents as bytes, transposed", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{1, 32}, scale: safetensors.U8, out: f32}, 40,
			100).transpose().slice(0, 7, 77)
	}},
	{"dequantize without scales", func(m *maker) both { return m.dequantize(quantized{bare: true}, 30, 40).slice(1, 3, 37) }},
	{"dequantize without scales, transposed", func(m *maker) both {
		return m.dequantize(quantized{bare: true, out: f16}, 3, 30, 40).transpose().index(2)
	}},
	{"dequantize columns [1,N]", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{0, 1}}, 30, 40).transpose() }},
	{"dequantize 3-D by columns", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{0, 1}}, 3, 20, 40).slice(0, 1, 3).slice(2, 5,
			39)
	}},
	{"dequantize whole tensor", func(m *maker) both { return m.dequantize(quantized{stored: []int64{}}, 30, 40) }},
	{"dequantize whole tensor [1]", func(m *maker) both {
		return m.dequantize(quantized{stored: []int64{1}, scale: bf16}, 30, 40).transpose()
	}},
	{"dequantize rows [M]", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{1, 0}, stored: []int64{30}}, 30, 40).slice(0,
			3, 20)
	}},
	{"dequantize rows [M,1]", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{1, 0}}, 30, 40).transpose() }},
	{"dequantize columns [N]", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{0, 1}, stored: []int64{40}}, 30, 40).slice(1,
			7, 33)
	}},
	{"dequantize slice", func(m *maker) both {
		return m.dequantize(quantized{block: blocks}, 200, 300).slice(0, 33, 190).slice(1, 5, 277)
	}},
	{"dequantize slice transposed", func(m *maker) both {
		return m.dequantize(quantized{block: blocks}, 200, 300).slice(0, 33,
			190).transpose().slice(0, 77, 211)
	}},
	{"dequantize row", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{16, 16}}, 50, 60).index(33) }},
	{"dequantize 3-D", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{16, 16}}, 3, 20, 40) }},
	{"dequantize 3-D transposed", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{16, 16}}, 3, 20, 40).transpose() }},
	{"dequantize 3-D, experts", func(m *maker) both { return m.dequantize(quantized{block: [2]int64{16, 16}}, 5, 20, 40).slice(0, 2, 4) }},
	{"dequantize 3-D, one expert", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{16, 16}}, 5, 20, 40).slice(2, 11,
			31).index(3).transpose()
	}},
	{"dequantize 3-D by [E]", func(m *maker) both { return m.dequantize(quantized{stored: []int64{3}}, 3, 20, 40).index(1) }},
	{"dequantize 3-D by one", func(m *maker) both {
		return m.dequantize(quantized{grid: []int64{1, 1, 1}, stored: []int64{1}}, 3, 20, 40)
	}},
	{"dequantize 3-D by rows", func(m *maker) both {
		return m.dequantize(quantized{block: [2]int64{1, 0}, stored: []int64{3, 20}}, 3, 20,
			40).slice(0, 1, 3)
	}},

	{"cast", func(m *maker) both { return m.load(bf16, 9, 10).cast(f32) }},
	{"cast from F64", func(m *maker) both { return m.load(safetensors.F64, 9, 10).cast(f32).transpose() }},
	{"cast from F64 down", func(m *maker) both { return m.load(safetensors.F64, 3, 9, 10).cast(f16).index(2).slice(0, 1, 8) }},
	{"cast down", func(m *maker) both { return m.load(f32, 9, 10).cast(f16).transpose() }},
	{"cast sliced", func(m *maker) both { return m.load(f16, 9, 10).cast(bf16).slice(1, 2, 7).slice(0, 1, 8).index(3) }},

	{"concat first axis", func(m *maker) both { return m.concat(0, m.load(bf16, 3, 5), m.load(bf16, 4, 5), m.load(bf16, 1, 5)) }},
	{"concat last axis", func(m *maker) both { return m.concat(1, m.load(bf16, 6, 5), m.load(bf16, 6, 0), m.load(bf16, 6, 1)) }},
	{"concat middle axis", func(m *maker) both { return m.concat(1, m.load(bf16, 3, 5, 4), m.load(bf16, 3, 2, 4)) }},
	{"concat middle axis, parts", func(m *maker) both {
		return m.concat(1, m.load(bf16, 3, 5, 4), m.load(bf16, 3, 2, 4)).slice(1, 3,
			6).transpose().slice(0, 1, 3)
	}},
	{"concat of rank 4", func(m *maker) both {
		return m.concat(0, m.load(bf16, 2, 3, 2, 4), m.load(bf16, 1, 3, 2, 4)).slice(0, 1,
			3).index(1)
	}},
	{"concat of vectors", func(m *maker) both { return m.concat(0, m.load(bf16, 6), m.load(bf16, 5)).slice(0, 3, 9) }},

	{"merged expert", func(m *maker) both { return m.merged(40, 56, bf16) }},
	{"merged expert F32", func(m *maker) both { return m.merged(24, 50, f32) }},
	{"merged experts", func(m *maker) both {
		return m.stack(m.merged(20, 30, bf16), m.merged(20, 30, bf16), m.merged(20, 30, bf16),
			m.merged(20, 30, bf16))
	}},
	{"merged experts, part", func(m *maker) both {
		return m.stack(m.merged(20, 30, bf16), m.merged(20, 30, bf16),
			m.merged(20, 30, bf16)).slice(0, 1, 3).slice(2, 13, 31).transpose()
	}},
	{"un-merged expert", func(m *maker) both {
		return m.load(bf16, 4, 30, 48).slice(2, 24, 48).transpose().index(2)
	}},
	{"stack", func(m *maker) both { return m.stack(m.load(f32, 3, 5), m.load(f32, 3, 5)) }},
	{"stack of vectors", func(m *maker) both { return m.stack(m.load(f32, 5), m.load(f32, 5), m.load(f32, 5)).transpose() }},
	{"stack of scalars", func(m *maker) both { return m.stack(m.load(f32), m.load(f32)) }},
	{"stack of empty", func(m *maker) both { return m.stack(m.load(f32, 0, 3), m.load(f32, 0, 3)).transpose() }},

	{"reshape", func(m *maker) both { return m.load(bf16, 6, 10).reshape(4, 15) }},
	{"reshape transposed", func(m *maker) both { return m.load(bf16, 60, 50).reshape(40, 75).transpose() }},
	{"reshape same width", func(m *maker) both { return m.load(bf16, 6, 10).reshape(2, 3, 10).slice(2, 1, 5).transpose() }},
	{"reshape of slice", func(m *maker) both { return m.merged(10, 12, bf16).slice(1, 3, 15).reshape(6, 24).slice(1, 5, 20) }},
	{"reshape, slice, index", func(m *maker) both {
		return m.load(bf16, 6, 20).reshape(3, 4, 10).slice(1, 1, 3).index(2).transpose().index(1)
	}},
	{"zeros", func(m *maker) both { return m.blank(f32, 7) }},
	{"zeros of rank 3", func(m *maker) both { return m.blank(bf16, 3, 4, 5).transpose().slice(1, 1, 4).index(2) }},
	{"zeros of nothing", func(m *maker) both { return m.blank(f32, 0) }},
	{"padded vector", func(m *maker) both { return m.concat(0, m.load(f32, 5), m.blank(f32, 3)).slice(0, 3, 7) }},
	{"slice to nothing", func(m *maker) both { return m.load(bf16, 6, 20).slice(0, 3, 3).transpose() }},
}

// blank returns a tensor of zeros.
func (m *maker) blank(d safetensors.DType, shape ...int64) both {
	size := int64(1)
	for _, s := range shape {
		size *= s
	}
	return m.both(tensor{d, shape, make([]uint64, size)})(Blank(d, shape...))
}

// poisoned returns a buffer that shows unwritten bytes.
func poisoned(n int64) []byte { return bytes.Repeat([]byte{0xAB}, int(n)) }

// checkRange reads a range and compares it with the slice of the whole.
func checkRange(t *testing.T, env *testEnv, n Node, want []byte, lo, hi int64) {
	t.Helper()
	p := poisoned(hi - lo + 2)
	if err := n.ReadAt(env.read(), p[1:1+hi-lo], lo); err != nil {
		t.Fatalf("%s: [%d, %d): %v", n, lo, hi, err)
	}
	if p[0] != 0xAB || p[len(p)-1] != 0xAB {
		t.Fatalf("%s: [%d, %d): wrote outside the buffer", n, lo, hi)
	}
	if got := p[1 : 1+hi-lo]; !bytes.Equal(got, want[lo:hi]) {
		i := lo
		for got[i-lo] == want[i] {
			i++
		}
		t.Fatalf("%s: [%d, %d): byte %d is %#x, want %#x", n, lo, hi, i, got[i-lo], want[i])
	}
}

// randomRange returns any range, often a short one.
func randomRange(rng *rand.Rand, size int64) (lo, hi int64) {
	lo = rng.Int64N(size + 1)
	hi = lo + rng.Int64N(size-lo+1)
	if rng.IntN(2) == 0 {
		hi = min(hi, lo+rng.Int64N(40))
	}
	return lo, hi
}

func TestEveryRangeEqualsTheReference(t *testing.T) {
	for i, r := range allRecipes {
		t.Run(r.name, func(t *testing.T) {
			m := newMaker(t, uint64(i))
			b := r.make(m)
			want := b.want.bytes()
			if b.Size() != int64(len(want)) || !slices.Equal(b.Shape(), b.want.shape) ||
				b.DType() != b.want.dtype {
				t.Fatalf("%s is %s %v, %d bytes; want %s %v, %d",
					b, b.DType(), b.Shape(), b.Size(), b.want.dtype, b.want.shape, len(want))
			}
			for name, env := range environments() {
				t.Run(name, func(t *testing.T) {
					checkRange(t, env, b, want, 0, b.Size())
					for range 60 {
						lo, hi := randomRange(m.rng, b.Size())
						checkRange(t, env, b, want, lo, hi)
					}
				})
			}
			if n := pinned.Load(); n != 0 {
				t.Errorf("%d entries were not released", n)
			}
		})
	}
}

// smallChunks makes every loop over chunks run more than once.
func smallChunks(t *testing.T) {
	old, oldGrid := [...]int{chunk, gap, strip}, smallGrid
	t.Cleanup(func() { chunk, gap, strip, smallGrid = old[0], old[1], old[2], oldGrid })
	chunk, gap, strip, smallGrid = 100, 16, 200, 0
}

func TestReadsInSmallChunksEqualTheReference(t *testing.T) {
	smallChunks(t)
	for i, r := range allRecipes {
		m := newMaker(t, uint64(i))
		b := r.make(m)
		want := b.want.bytes()
		for _, env := range environments() {
			checkRange(t, env, b, want, 0, b.Size())
			for range 5 {
				lo, hi := randomRange(m.rng, b.Size())
				checkRange(t, env, b, want, lo, hi)
			}
		}
	}
}

// The parts of a tensor can begin at the same offset, and so can tensors that share bytes in
// another shape.
func TestPartsOfATensorAreUnitsOfTheirOwn(t *testing.T) {
	m := newMaker(t, 1)
	want := m.random(bf16, 12, 8)
	src := m.store("w", want)
	wide := *src
	wide.Shape = []int64{6, 16}
	whole := m.both(want)(Load(src))
	parts := []both{
		whole.transpose(),
		whole.slice(0, 0, 6).transpose(),
		whole.slice(1, 0, 4).transpose(),
		whole.slice(0, 0, 6).slice(1, 0, 4).transpose(),
		m.both(want.reshape(6, 16))(Load(&wide)).slice(1, 0, 4).transpose(),
		m.both(want.reshape(6, 16))(Load(&wide)).transpose(),
	}
	env := &testEnv{cache: &mapCache{limit: 1 << 30}}
	for range 2 {
		for _, b := range parts {
			checkRange(t, env, b, b.want.bytes(), 0, b.Size())
		}
	}
}

func TestEqualRecipesShareTheirUnits(t *testing.T) {
	m := newMaker(t, 1)
	want := m.random(bf16, 3, 12, 8)
	src := m.store("w", want)
	for range 2 {
		b := m.both(want)(Load(src)).transpose()
		one := b.index(1)
		cast := one.cast(f32)
		keys := map[UnitKey]bool{}
		for _, n := range []Node{b.index(1), one, cast, b.slice(0, 1, 3).index(0)} {
			n.Units(0, n.Size(), func(u *Unit) bool {
				keys[u.Key()] = true
				return true
			})
		}
		if len(keys) != 1 {
			t.Errorf("%d units for one matrix", len(keys))
		}
	}
}

// The shapes are those of DeepSeek-V3, with a partial last block. Only some elements are checked.
func TestElementsOfAFullSizeWeight(t *testing.T) {
	m := newMaker(t, 1)
	b := m.dequantizeLarge(576, 7168)
	for name, n := range map[string]both{"as stored": b.both,
		"transposed": b.both.withNode(Transpose(b.Node))} {
		for _, env := range environments() {
			whole := poisoned(n.Size())
			if err := n.ReadAt(env.read(), whole, 0); err != nil {
				t.Fatal(err)
			}
			for range 2000 {
				i, j := m.rng.Int64N(576), m.rng.Int64N(7168)
				at := i*7168 + j
				if name == "transposed" {
					at = j*576 + i
				}
				got := uint64(whole[2*at]) | uint64(whole[2*at+1])<<8
				if want := b.element(i, j); got != want {
					t.Fatalf("%s: element (%d, %d) is %#x, want %#x", name, i, j, got, want)
				}
			}
		}
	}
}

func TestRangesOutsideAreErrors(t *testing.T) {
	for i, r := range allRecipes {
		b := r.make(newMaker(t, uint64(i)))
		for _, off := range []int64{-1, b.Size(), b.Size() + 1, 1 << 62} {
			if err := b.ReadAt(nil, make([]byte, 1), off); err == nil {
				t.Errorf("%s: %s: byte %d of %d can be read", r.name, b, off, b.Size())
			}
		}
		b.Units(-5, 1<<40, func(*Unit) bool { return true })
		b.Ranges(-5, 1<<40, func(File, int64, int64) bool { return true })
	}
}

// recorder records the requests of a read to its environment.
type recorder struct {
	mapCache
	ranges [][2]int64
	env    testEnv
}

func newRecorder() *recorder {
	r := &recorder{mapCache: mapCache{limit: 1 << 40}}
	r.env = testEnv{cache: r, readAt: func(f File, p []byte, off int64) (int, error) {
		r.ranges = append(r.ranges, [2]int64{off, off + int64(len(p))})
		return f.ReadAt(context.Background(), p, off)
	}}
	return r
}

func (r *recorder) units() []UnitKey {
	var keys []UnitKey
	for _, u := range r.asked {
		if u.Key().Kind != Grid && !slices.Contains(keys, u.Key()) {
			keys = append(keys, u.Key())
		}
	}
	return keys
}

func TestUnitsAndRangesAreWhatAReadAsksFor(t *testing.T) {
	for _, small := range []int64{smallGrid, 0} {
		t.Run(fmt.Sprint("grids of more than ", small), func(t *testing.T) {
			old := smallGrid
			defer func() { smallGrid = old }()
			smallGrid = small
			checkUnitsAndRanges(t)
		})
	}
	t.Run("units that are not kept", func(t *testing.T) {
		old := maxUnits
		defer func() { maxUnits = old }()
		maxUnits = 1
		checkUnitsAndRanges(t)
	})
}

func checkUnitsAndRanges(t *testing.T) {
	t.Helper()
	for i, recipe := range allRecipes {
		m := newMaker(t, uint64(i))
		b := recipe.make(m)
		for range 30 {
			lo, hi := randomRange(m.rng, b.Size())
			r := newRecorder()
			if err := b.ReadAt(&r.env, poisoned(hi-lo), lo); err != nil {
				t.Fatal(err)
			}
			var said []UnitKey
			b.Units(lo, hi-lo, func(u *Unit) bool {
				if !slices.Contains(said, u.Key()) {
					said = append(said, u.Key())
				}
				return true
			})
			for _, k := range r.units() {
				if !slices.Contains(said, k) {
					t.Errorf("%s: [%d, %d) used unit %v, which Units did not say", b, lo, hi, k)
				}
			}
			if len(said) > len(r.units())+1 && len(said) > 2 {
				t.Errorf("%s: [%d, %d) used %d units, Units said %d",
					b, lo, hi, len(r.units()), len(said))
			}
			var ranges [][2]int64
			b.Ranges(lo, hi-lo, func(f File, off, n int64) bool {
				ranges = append(ranges, [2]int64{off, off + n})
				return true
			})
			checkCovered(t, b, ranges, r.ranges)
		}
	}
}

// checkCovered checks that each read is inside the announced ranges. Reads of cached units are not
// recorded.
func checkCovered(t *testing.T, n Node, said, read [][2]int64) {
	t.Helper()
	for _, r := range read {
		if !slices.ContainsFunc(said, func(s [2]int64) bool {
			return s[0] <= r[0] && r[1] <= s[1]
		}) {
			t.Errorf("%s: read %v, Ranges said %v", n, r, said)
		}
	}
}

func TestManyReadersAtOnce(t *testing.T) {
	m := newMaker(t, 5)
	nodes := []both{
		m.stack(m.merged(40, 56, bf16), m.merged(40, 56, bf16)),
		m.dequantize(quantized{block: blocks}, 200, 300).slice(1, 3, 290),
		m.load(bf16, 40, 50).cast(f32).transpose(),
	}
	var wants [][]byte
	for _, b := range nodes {
		wants = append(wants, b.want.bytes())
	}
	for name, env := range environments() {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Go(func() { readUntilCancelled(t, env, nodes, wants, uint64(g)) })
			}
			wg.Wait()
		})
	}
}

// readUntilCancelled reads ranges. Odd readers are cancelled in the middle of a read.
func readUntilCancelled(t *testing.T, env *testEnv, nodes []both, wants [][]byte, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	own := testEnv{ctx: ctx}
	if env != nil {
		own.cache, own.together = env.cache, env.together
	}
	reads := 0
	own.readAt = func(f File, p []byte, off int64) (int, error) {
		if reads++; reads > 20 && seed%2 == 1 {
			cancel()
		}
		return f.ReadAt(context.Background(), p, off)
	}
	for i := range 20 {
		b := nodes[i%len(nodes)]
		want := wants[i%len(nodes)]
		lo, hi := randomRange(rng, b.Size())
		p := poisoned(hi - lo)
		err := b.ReadAt(&own, p, lo)
		if err == nil && !bytes.Equal(p, want[lo:hi]) {
			t.Errorf("%s: [%d, %d) is wrong", b, lo, hi)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestCancelledReadsAreErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for i, r := range allRecipes {
		b := r.make(newMaker(t, uint64(i)))
		for name, cache := range map[string]keeper{"no cache": nil,
			"cache": &mapCache{limit: 1 << 30}} {
			err := b.ReadAt(&testEnv{ctx: ctx, cache: cache}, poisoned(b.Size()), 0)
			if b.Size() > 0 && !errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s: %v", r.name, name, err)
			}
		}
	}
}

func TestFaultyFilesAlwaysGiveErrors(t *testing.T) {
	broken := errors.New("input/output error")
	faults := map[string]func(n int) (int, error){
		"short":        func(n int) (int, error) { return n - 1, nil },
		"nothing":      func(n int) (int, error) { return 0, nil },
		"end of file":  func(n int) (int, error) { return n / 2, io.EOF },
		"device error": func(n int) (int, error) { return n / 2, broken },
		"file changed": func(n int) (int, error) { return n, broken }, // all bytes, but wrong
	}
	for i, r := range allRecipes {
		m := newMaker(t, uint64(i))
		b := r.make(m)
		if b.Size() == 0 {
			continue
		}
		want := b.want.bytes()
		for name, fault := range faults {
			for which, env := range environments() {
				at, hit := m.rng.Int64N(int64(len(m.file.data))), false
				m.file.fail = func(off int64, n int) (int, error) {
					if off <= at && at < off+int64(n) {
						hit = true
						return fault(n)
					}
					return n, nil
				}
				if c, ok := envCache(env); ok {
					c.env = nil // one strip after the other
				}
				p := poisoned(b.Size())
				err := b.ReadAt(env.read(), p, 0)
				checkFault(t, fmt.Sprint(r.name, ", ", name, ", ", which), err, hit, broken)
				if err == nil && !bytes.Equal(p, want) {
					t.Errorf("%s: %s: wrong bytes", r.name, b)
				}
			}
		}
	}
	if n := pinned.Load(); n != 0 {
		t.Errorf("%d entries were not released", n)
	}
}

func envCache(env *testEnv) (*mapCache, bool) {
	if env == nil {
		return nil, false
	}
	c, ok := env.cache.(*mapCache)
	return c, ok
}

// checkFault checks that a read fails if and only if it met a fault.
func checkFault(t *testing.T, name string, err error, hit bool, broken error) {
	t.Helper()
	switch {
	case hit && err == nil:
		t.Errorf("%s: no error", name)
	case err != nil && !hit:
		t.Errorf("%s: %v", name, err)
	case err != nil && !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF):
		t.Errorf("%s: %v", name, err)
	}
}

// randomRecipe builds a recipe from a fuzzer's choices.
func (m *maker) randomRecipe() both {
	var b both
	side := func() int64 { return 1 + m.rng.Int64N(40) }
	rows, cols := side(), side()
	leaf := func() both {
		switch m.rng.IntN(5) {
		case 0:
			return m.load(bf16, rows, cols)
		case 1:
			return m.load(f32, rows, cols).cast(bf16)
		case 2:
			return m.packed(m.randomKind(), rows, cols)
		case 3:
			return m.packed(gptq([]int{2, 3, 4, 8}[m.rng.IntN(4)], m.rng.IntN(2)-1), rows, cols)
		}
		block := [2]int64{m.rng.Int64N(20), m.rng.Int64N(20)}
		return m.dequantize(quantized{block: block,
			scale: []safetensors.DType{f32, bf16, f16, e8m0}[m.rng.IntN(4)]}, rows, cols)
	}
	switch m.rng.IntN(4) {
	case 0:
		b = leaf()
	case 1:
		b = m.concat(m.rng.IntN(2), leaf(), leaf(), leaf())
	case 2:
		b = m.stack(leaf(), leaf(), leaf())
	case 3:
		b = m.dequantize(quantized{block: [2]int64{8, 8}}, 3, rows, cols)
	}
	for range m.rng.IntN(5) {
		b = m.change(b)
	}
	return b
}

// randomKind describes codes in rows.
func (m *maker) randomKind() packedKind {
	k := packedKind{bits: 4, order: fp8.Order(m.rng.IntN(3)), e2m1: m.rng.IntN(2) == 0, groups: -1,
		block: [2]int64{m.rng.Int64N(20), m.rng.Int64N(20)}}
	if m.rng.IntN(3) == 0 {
		k.bits, k.order, k.e2m1, k.word = []int{2, 3, 8}[m.rng.IntN(3)], fp8.LowFirst, false, u8
	}
	if k.groups = m.rng.IntN(3) - 1; k.groups >= 0 {
		k.block[k.groups] = max(k.block[k.groups], 1)
	}
	switch m.rng.IntN(3) {
	case 0:
		k.zeros.constant = 1 << (k.bits - 1)
	case 1:
		k.zeros = zeroKind{there: true, bits: k.bits, word: i32, down: m.rng.IntN(2) == 0}
	}
	return k
}

func (m *maker) change(b both) both {
	rank := len(b.Shape())
	switch op := m.rng.IntN(8); {
	case op == 0 && rank >= 2:
		return b.transpose()
	case op == 1 && rank >= 1 && b.Shape()[0] > 0:
		return b.index(m.rng.Int64N(b.Shape()[0]))
	case op == 2 && rank >= 1:
		axis := m.rng.IntN(rank)
		lo, hi := randomRange(m.rng, b.Shape()[axis])
		return b.slice(axis, lo, hi)
	case op == 3 && rank >= 2:
		return m.concat(m.rng.IntN(rank), b, b)
	case op == 4 && rank == 2:
		return b.reshape(b.Shape()[1], b.Shape()[0])
	case op == 5:
		return m.stack(b, b)
	case op == 6 && rank >= 1 && b.Shape()[0] > 0:
		outer := m.divisor(b.Shape()[0])
		return b.swapRows(outer, m.divisor(b.Shape()[0]/outer))
	case op == 7 && rank >= 1:
		return b.product(m.load([]safetensors.DType{f32, bf16, f16}[m.rng.IntN(3)], b.Shape()[0]))
	}
	return b
}

// divisor returns a random divisor.
func (m *maker) divisor(n int64) int64 {
	var all []int64
	for d := int64(1); d <= n; d++ {
		if n%d == 0 {
			all = append(all, d)
		}
	}
	return all[m.rng.IntN(len(all))]
}

func FuzzReadAt(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed, seed*7919, seed*104729)
	}
	f.Fuzz(func(t *testing.T, seed, lo, n uint64) {
		m := newMaker(t, seed)
		b := m.randomRecipe()
		want := b.want.bytes()
		off := int64(lo % uint64(len(want)+1))
		end := off + int64(n%uint64(int64(len(want))-off+1))
		for _, env := range environments() {
			checkRange(t, env, b, want, 0, b.Size())
			checkRange(t, env, b, want, off, end)
		}
	})
}
