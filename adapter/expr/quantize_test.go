package expr

import (
	"math"
	"slices"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// quantize returns both nodes of b.
func (m *maker) quantize(b both, block [2]int64, mode ScaleMode) (codes, grid both) {
	m.t.Helper()
	c, s, err := Quantize(b.Node, QuantizeOptions{block, mode})
	if block == [2]int64{} {
		block = [2]int64{128, 128}
	}
	wantCodes, wantGrid := quantizeTensor(b.want, block, mode == Ones)
	return m.both(wantCodes)(c, err), m.both(wantGrid)(s, err)
}

// values makes a tensor of weights of usual sizes, with some unusual ones.
func (m *maker) values(d safetensors.DType, shape ...int64) both {
	odd := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), 1e-30, 470,
		-460}
	want := tensor{dtype: d, shape: shape}
	positions(shape, func([]int64) {
		v := m.rng.NormFloat64() / 50
		if m.rng.IntN(50) == 0 {
			v = odd[m.rng.IntN(len(odd))]
		}
		if math.IsNaN(v) {
			want.bits = append(want.bits, quietNaN(d, m.rng.Uint64N(2)))
		} else {
			want.bits = append(want.bits, encodeBits(v, d))
		}
	})
	return m.both(want)(Load(m.store(m.key("weight"), want)))
}

var quantizeRecipes = []struct {
	name  string
	block [2]int64
	make  func(m *maker) both
}{
	{"stored", [2]int64{}, func(m *maker) both { return m.values(bf16, 150, 200) }},
	{"one value", [2]int64{}, func(m *maker) both { return m.values(f32, 1, 1) }},
	{"empty", [2]int64{}, func(m *maker) both { return m.values(f32, 0, 5) }},
	{"one row", [2]int64{}, func(m *maker) both { return m.values(f16, 1, 300) }},
	{"odd blocks", [2]int64{7, 30}, func(m *maker) both { return m.values(f16, 50, 70) }},
	{"transposed", [2]int64{16, 8}, func(m *maker) both { return m.values(bf16, 50, 70).transpose() }},
	{"one expert's gate", [2]int64{16, 8}, func(m *maker) both { return m.values(bf16, 3, 40, 66).slice(2, 0, 33).transpose().index(1) }},
	{"one expert's up", [2]int64{8, 16}, func(m *maker) both { return m.values(bf16, 3, 40, 66).slice(2, 33, 66).transpose().index(2) }},
	{"joined", [2]int64{16, 16}, func(m *maker) both { return m.concat(1, m.values(bf16, 30, 20).transpose(), m.values(bf16, 20, 9)) }},
	{"cast", [2]int64{16, 16}, func(m *maker) both { return m.values(f32, 30, 20).cast(bf16) }},
	{"dequantized", [2]int64{16, 16}, func(m *maker) both { return m.dequantize(quantized{block: [2]int64{9, 9}}, 30, 20) }},
}

func TestEveryRangeOfCodesAndScalesEqualsTheReference(t *testing.T) {
	for i, r := range quantizeRecipes {
		for _, mode := range []ScaleMode{Amax, Ones} {
			m := newMaker(t, uint64(i))
			codes, grid := m.quantize(r.make(m), r.block, mode)
			for _, b := range []both{codes, grid} {
				want := b.want.bytes()
				if b.DType() != b.want.dtype || !slices.Equal(b.Shape(), b.want.shape) {
					t.Fatalf("%s: %s is %s %v", r.name, b, b.DType(), b.Shape())
				}
				for _, env := range environments() {
					checkRange(t, env, b, want, 0, b.Size())
					for range 15 {
						lo, hi := randomRange(m.rng, b.Size())
						checkRange(t, env, b, want, lo, hi)
					}
				}
			}
		}
	}
	if n := pinned.Load(); n != 0 {
		t.Errorf("%d entries were not released", n)
	}
}

func TestCodesInSmallChunksEqualTheReference(t *testing.T) {
	smallChunks(t)
	for i, r := range quantizeRecipes {
		codes, _ := newMaker(t, uint64(i)).quantize(r.make(newMaker(t, uint64(i))), r.block, Amax)
		for _, env := range environments() {
			checkRange(t, env, codes, codes.want.bytes(), 0, codes.Size())
		}
	}
}

func TestNodesOverCodesAndScales(t *testing.T) {
	m := newMaker(t, 3)
	codes, grid := m.quantize(m.values(bf16, 40, 50), [2]int64{8, 16}, Amax)
	for _, b := range []both{codes, grid} {
		for _, c := range []both{b.transpose(), b.slice(0, 1, 3), b.slice(1, 1, 3).transpose(),
			b.index(2), m.concat(1, b, b).transpose().index(1), m.stack(b, b)} {
			checkRange(t, nil, c, c.want.bytes(), 0, c.Size())
		}
	}
}

func TestCodesShareOneComputedGrid(t *testing.T) {
	m := newMaker(t, 3)
	codes, grid := m.quantize(m.values(bf16, 3, 64, 80).slice(2, 40, 80).transpose().index(1),
		[2]int64{16, 16}, Amax)
	m.file.bytes.Store(0)
	env := &Env{Cache: &mapCache{limit: 1 << 30}}
	checkRange(t, env, grid, grid.want.bytes(), 0, grid.Size())
	if n := m.file.bytes.Load(); n > 64*80*2 {
		t.Errorf("the grid of %d bytes of values read %d", 64*40*2, n)
	}
	before := m.file.bytes.Load()
	for lo := int64(0); lo < codes.Size(); lo += 100 {
		checkRange(t, env, codes, codes.want.bytes(), lo, min(lo+100, codes.Size()))
	}
	if n := m.file.bytes.Load() - before; n > 64*80*2 {
		t.Errorf("the codes of %d bytes of values read %d", 64*40*2, n)
	}
}

func TestComputedUnitsNameTheirFile(t *testing.T) {
	m := newMaker(t, 3)
	w := m.values(bf16, 64, 80)
	for _, b := range []both{w, w.transpose(), w.cast(f32).slice(0, 3, 9)} {
		codes, scales := m.quantize(b, [2]int64{16, 16}, Amax)
		for _, n := range []Node{codes, scales} {
			n.Units(0, 1, func(u *Unit) bool {
				if k := u.Key(); k.Kind != Computed || k.File != File(m.file) ||
					k.Recipe != b.Node {
					t.Errorf("%s: the first unit is %v", n, k)
				}
				if u.Size() != scales.Size() {
					t.Errorf("%s: %d bytes, want %d", u, u.Size(), scales.Size())
				}
				return false
			})
		}
	}
}

func TestSaturationAndOverflowAreCounted(t *testing.T) {
	for _, test := range []struct {
		values              []float64
		mode                ScaleMode
		saturated, infinite int64
	}{
		{[]float64{1, 2, 448, -449, 464, 465, -1e30, math.Inf(1), math.NaN()}, Ones, 3, 0},
		{[]float64{1, 2, 448, -449, 1e30, math.Inf(1), math.Inf(-1), math.NaN()}, Amax, 2, 0},
	} {
		m := newMaker(t, 1)
		want := tensor{dtype: f32, shape: []int64{1, int64(len(test.values))}}
		for _, v := range test.values {
			want.bits = append(want.bits, uint64(math.Float32bits(float32(v))))
		}
		codes, _ := m.quantize(m.both(want)(Load(m.store("w", want))), [2]int64{}, test.mode)
		env := &Env{Counters: &Counters{}}
		checkRange(t, env, codes, codes.want.bytes(), 0, codes.Size())
		if n := env.Counters.Saturated.Load(); n != test.saturated {
			t.Errorf("%v: %d saturated, want %d", test.values, n, test.saturated)
		}
	}
}

func TestF16InfinitiesAreCounted(t *testing.T) {
	m := newMaker(t, 1)
	want := tensor{dtype: f32, shape: []int64{5, 33}}
	infinite := int64(0)
	positions(want.shape, func([]int64) {
		v := m.rng.NormFloat64()
		if m.rng.IntN(9) == 0 {
			v, infinite = 70000, infinite+1
		}
		want.bits = append(want.bits, encodeBits(v, f32))
	})
	want.bits[3] = quietNaN(f32, 0)
	infinite = 0
	for _, u := range want.bits {
		if decodeBits(u, f32) == 70000 {
			infinite++
		}
	}
	n := m.both(want)(Load(m.store("w", want))).cast(f16)
	env := &Env{Counters: &Counters{}}
	checkRange(t, env, n, n.want.bytes(), 0, n.Size())
	if got := env.Counters.Infinite.Load(); got != infinite {
		t.Errorf("%d infinities, want %d", got, infinite)
	}
}

func TestQuantizeRefuses(t *testing.T) {
	m := newMaker(t, 1)
	for _, test := range []struct {
		n Node
		o QuantizeOptions
	}{
		{m.load(bf16, 5), QuantizeOptions{}},
		{m.load(bf16, 2, 3, 4), QuantizeOptions{}},
		{m.load(safetensors.I32, 5, 5), QuantizeOptions{}},
		{m.load(bf16, 5, 5), QuantizeOptions{Block: [2]int64{0, 128}}},
		{m.load(bf16, 5, 5), QuantizeOptions{Block: [2]int64{128, 2048}}},
		{m.load(bf16, 5, 5), QuantizeOptions{Block: [2]int64{128, -1}}},
	} {
		test.n = test.n.(both).Node
		if _, _, err := Quantize(test.n, test.o); err == nil {
			t.Errorf("%s was quantized with %v", test.n, test.o)
		}
	}
}
