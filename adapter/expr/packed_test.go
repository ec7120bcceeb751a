package expr

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fp8"
)

const (
	u8  = safetensors.U8
	i8  = safetensors.I8
	i32 = safetensors.I32
)

// packedKind describes a random packed weight.
type packedKind struct {
	bits    int
	order   fp8.Order
	down    bool
	word    safetensors.DType
	signed  bool
	e2m1    bool
	block   [2]int64
	scale   safetensors.DType
	shared  bool // one grid for all matrices
	second  int  // 0: none; 1: one number; 2: one for each matrix
	divides bool
	nested  bool
	zeros   zeroKind
	groups  int // -1: none; the axis of a list of groups
	out     safetensors.DType
}

type zeroKind struct {
	there, down, signed bool
	bits                int
	order               fp8.Order
	word                safetensors.DType
	plus, constant      int
}

// words packs codes[r][c], bit by bit.
func words(codes [][]int, bits int, order fp8.Order, down bool, word safetensors.DType) []byte {
	size := word.Bits() / 8
	rows, cols := len(codes), len(codes[0])
	width := (cols*bits + 8*size - 1) / (8 * size) * size
	b := make([]byte, rows*width)
	if down {
		b = make([]byte, (rows*bits+8*size-1)/(8*size)*size*cols)
	}
	for r, row := range codes {
		for c, code := range row {
			for i := range bits {
				at := r*width*8 + place(c, order)*bits + i
				if down {
					bit := r*bits + i
					at = (bit/(8*size)*cols+c)*8*size + bit%(8*size)
				}
				b[at/8] |= byte(code>>i&1) << (at % 8)
			}
		}
	}
	return b
}

// place returns the position of a code in its row.
func place(c int, order fp8.Order) int {
	switch order {
	case fp8.HighFirst:
		return c ^ 1
	case fp8.Interleaved:
		return c/8*8 + slices.Index([]int{0, 2, 4, 6, 1, 3, 5, 7}, c%8)
	}
	return c
}

func (m *maker) codes(rows, cols int64, bits int) [][]int {
	codes := make([][]int, rows)
	for r := range codes {
		for range cols {
			codes[r] = append(codes[r], m.rng.IntN(1<<bits))
		}
	}
	return codes
}

// storeWords appends words to the file.
func (m *maker) storeWords(key string, d safetensors.DType, b []byte) *Source {
	src := &Source{Key: key, File: m.file, Offset: int64(len(m.file.data)), DType: d,
		Shape: []int64{int64(len(b) / (d.Bits() / 8))}}
	m.file.data = append(m.file.data, b...)
	return src
}

// packed makes a random packed weight.
func (m *maker) packed(k packedKind, shape ...int64) both {
	m.t.Helper()
	k.out, k.scale, k.word = orDType(k.out, bf16), orDType(k.scale, f32), orDType(k.word, i32)
	batch, rows, cols := int64(1), shape[len(shape)-2], shape[len(shape)-1]
	if len(shape) == 3 {
		batch = shape[0]
	}
	key := m.key("weight_packed")
	p := &Packed{Shape: shape, Pack: Pack{k.bits, k.order, k.down}, Signed: k.signed, Out: k.out}
	var all [][][]int
	var b []byte
	for range batch {
		codes := m.codes(rows, cols, k.bits)
		all = append(all, codes)
		b = append(b, words(codes, k.bits, k.order, k.down, k.word)...)
	}
	p.Codes = m.storeWords(key, k.word, b)
	if k.e2m1 {
		p.Values = &e2m1
	}
	r := &packedReference{kind: k, codes: all}
	m.addGroups(p, r, rows, cols)
	m.addScales(p, r, batch)
	m.addZeros(p, r, batch)
	return m.both(r.tensor(shape))(DequantizePacked(p))
}

var e2m1 = [16]float32{
	0, .5, 1, 1.5, 2, 3, 4, 6, float32(math.Copysign(0, -1)), -.5, -1, -1.5, -2, -3, -4, -6,
}

// packedReference is everything that an element depends on.
type packedReference struct {
	kind       packedKind
	codes      [][][]int
	grid       [2]int64
	list       []int // the group of each row or column, or nil
	scale      [][]float32
	zero       [][]float32
	rows, cols int64
}

func (m *maker) addGroups(p *Packed, r *packedReference, rows, cols int64) {
	r.rows, r.cols = rows, cols
	r.grid = [2]int64{blocksOf(rows, r.kind.block[0]), blocksOf(cols, r.kind.block[1])}
	p.Scales.Block = r.kind.block
	if r.kind.groups < 0 {
		return
	}
	n := []int64{rows, cols}[r.kind.groups]
	t := tensor{dtype: i32, shape: []int64{n}}
	for range n {
		g := m.rng.IntN(int(r.grid[r.kind.groups]))
		r.list = append(r.list, g)
		t.bits = append(t.bits, uint64(g))
	}
	p.Groups = Groups{m.store("g_idx", t), r.kind.groups}
}

func blocksOf(n, block int64) int64 {
	if block == 0 {
		return 1
	}
	return (n + block - 1) / block
}

func (m *maker) addScales(p *Packed, r *packedReference, batch int64) {
	if r.kind.shared {
		batch = 1
	}
	n := r.grid[0] * r.grid[1]
	t := m.scales(r.kind.scale, batch*n)
	if r.kind.nested {
		t = m.random(u8, batch*n)
	}
	p.Scales.Source = m.store("weight_scale", t)
	var second tensor
	if r.kind.second > 0 {
		count := int64(1)
		if r.kind.second == 2 {
			count = batch
		}
		second = m.scales(f32, count)
		p.Scales.Second, p.Scales.Divides = m.store("weight_scale_2", second), r.kind.divides
	}
	var nestedMap, absmax tensor
	if r.kind.nested {
		nestedMap, absmax = m.scales(f32, 256), m.scales(f32, (batch*n+6)/7)
		p.Scales.Nested = &Nested{m.store("map", nestedMap), m.store("absmax", absmax), 7, 0.3}
	}
	for i, u := range t.bits {
		v := float32(decodeBits(u, r.kind.scale))
		if r.kind.nested {
			v = float32(decodeBits(nestedMap.bits[u], f32))
			v *= float32(decodeBits(absmax.bits[i/7], f32))
			v += 0.3
		}
		if r.kind.second > 0 {
			s := float32(decodeBits(second.bits[min(i/int(n), len(second.bits)-1)], f32))
			if v *= s; r.kind.divides {
				v = float32(decodeBits(u, r.kind.scale)) / s
			}
		}
		if i%int(n) == 0 {
			r.scale = append(r.scale, nil)
		}
		r.scale[i/int(n)] = append(r.scale[i/int(n)], v)
	}
}

func (m *maker) addZeros(p *Packed, r *packedReference, batch int64) {
	z := r.kind.zeros
	p.Zeros.Constant = z.constant
	if !z.there {
		return
	}
	if r.kind.shared {
		batch = 1
	}
	var b []byte
	for range batch {
		codes := m.codes(r.grid[0], r.grid[1], z.bits)
		b = append(b, words(codes, z.bits, z.order, z.down, z.word)...)
		var zeros []float32
		for _, row := range codes {
			for _, c := range row {
				v := (c + z.plus) % (1 << z.bits)
				if z.signed {
					v = int(int8(c))
				}
				zeros = append(zeros, float32(v))
			}
		}
		r.zero = append(r.zero, zeros)
	}
	p.Zeros = Zeros{Source: m.storeWords("zeros", z.word, b), Pack: Pack{z.bits, z.order, z.down},
		Signed: z.signed, Plus: z.plus}
}

// tensor computes every element alone.
func (r *packedReference) tensor(shape []int64) tensor {
	out := tensor{dtype: r.kind.out, shape: shape}
	for e := range r.codes {
		for i, row := range r.codes[e] {
			for j, code := range row {
				out.bits = append(out.bits, r.element(e, i, j, code))
			}
		}
	}
	return out
}

func (r *packedReference) element(e, i, j, code int) uint64 {
	k := r.kind
	at := [2]int64{int64(i), int64(j)}
	for axis, block := range k.block {
		switch {
		case axis == k.groups:
			at[axis] = int64(r.list[at[axis]])
		case block == 0:
			at[axis] = 0
		default:
			at[axis] /= block
		}
	}
	g := at[0]*r.grid[1] + at[1]
	v := float32(code)
	switch {
	case k.e2m1:
		v = e2m1[code]
	case k.signed:
		v = float32(int8(code))
	}
	switch {
	case r.zero != nil:
		v -= r.zero[min(e, len(r.zero)-1)][g]
	case k.zeros.constant != 0:
		v -= float32(k.zeros.constant)
	}
	product := float32(v * r.scale[min(e, len(r.scale)-1)][g])
	if product != product {
		return quietNaN(k.out, 0)
	}
	return encodeBits(float64(product), k.out)
}

var allRecipes = slices.Concat(recipes, packedRecipes)

// packedRecipes have awkward shapes on purpose.
var packedRecipes = []struct {
	name string
	make func(m *maker) both
}{
	{"MXFP4", func(m *maker) both { return m.packed(mxfp4, 5, 64) }},
	{"MXFP4, 3-D, transposed", func(m *maker) both { return m.packed(mxfp4, 3, 20, 96).transpose() }},
	{"MXFP4, 3-D, one of a slice, transposed", func(m *maker) both {
		return m.packed(mxfp4, 11, 20, 64).slice(1, 3, 19).slice(2, 5, 61).transpose().index(7)
	}},
	{"MXFP4, odd columns", func(m *maker) both { return m.packed(mxfp4, 7, 64).slice(1, 31, 50) }},
	{"NVFP4 multiplied, one for each", func(m *maker) both {
		return m.packed(packedKind{bits: 4, word: u8, e2m1: true, block: [2]int64{1, 16}, scale: f8,
			second: 2, groups: -1, out: f32}, 3, 6, 48).slice(0, 1, 3)
	}},
	{"NVFP4 divided", func(m *maker) both {
		return m.packed(packedKind{bits: 4, word: u8, e2m1: true, block: [2]int64{1, 16}, scale: f8,
			second: 1, divides: true, groups: -1, out: f16}, 6, 48).transpose()
	}},
	{"NVFP4 down", func(m *maker) both {
		return m.packed(nvfp4Down, 3, 64, 21)
	}},
	{"NVFP4 down, transposed", func(m *maker) both {
		return m.packed(nvfp4Down, 3, 64, 21).transpose().slice(2, 3, 40)
	}},
	{"INT4, last word partly unused", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 0}, zeros: zeroKind{constant: 8},
			groups: -1}, 9, 37)
	}},
	{"INT4, short last group", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 32}, scale: bf16,
			zeros: zeroKind{constant: 8}, groups: -1, out: f32}, 9, 77).transpose()
	}},
	{"INT4 with zero points down", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 32}, scale: bf16,
			zeros: zeroKind{there: true, down: true, bits: 4, word: i32}, groups: -1}, 19, 100)
	}},
	{"INT4 with a list of groups", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 32}, scale: bf16,
			zeros: zeroKind{there: true, down: true, bits: 4, word: i32}, groups: 1}, 19, 100)
	}},
	{"INT4 with a list of groups, transposed slice", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 32}, scale: bf16,
			zeros: zeroKind{there: true, down: true, bits: 4, word: i32}, groups: 1}, 19,
			100).slice(1, 13, 99).slice(0, 2, 18).transpose()
	}},
	{"INT8 offset", func(m *maker) both {
		return m.packed(packedKind{bits: 8, block: [2]int64{1, 16}, zeros: zeroKind{constant: 128},
			groups: -1}, 9, 37).transpose()
	}},
	{"INT8 offset with zero points", func(m *maker) both {
		return m.packed(packedKind{bits: 8, block: [2]int64{1, 16},
			zeros: zeroKind{there: true, down: true, bits: 8, word: i32}, groups: -1}, 9, 37)
	}},
	{"INT8 by rows", func(m *maker) both {
		return m.packed(packedKind{bits: 8, word: i8, signed: true, block: [2]int64{1, 0},
			groups: -1, out: f16}, 9, 37).slice(1, 4, 30)
	}},
	{"INT8 with zero points", func(m *maker) both {
		return m.packed(packedKind{bits: 8, word: i8, signed: true, block: [2]int64{1, 0},
			zeros: zeroKind{there: true, signed: true, bits: 8, word: i8}, groups: -1}, 9,
			37).transpose()
	}},
	{"INT8 with one zero point", func(m *maker) both {
		return m.packed(packedKind{bits: 8, word: u8, zeros: zeroKind{constant: 7}, groups: -1}, 9,
			37)
	}},
	{"AWQ", func(m *maker) both { return m.packed(awq, 70, 40).transpose() }},
	{"AWQ, as stored, columns", func(m *maker) both { return m.packed(awq, 70, 40).slice(1, 3, 29) }},
	{"AWQ, part", func(m *maker) both {
		return m.packed(awq, 70, 40).transpose().slice(0, 5, 38).slice(1, 7, 66)
	}},
	{"GPTQ 2 bits", func(m *maker) both { return m.packed(gptq(2, -1), 96, 32).transpose() }},
	{"GPTQ 3 bits", func(m *maker) both { return m.packed(gptq(3, -1), 96, 32).transpose() }},
	{"GPTQ 3 bits, as stored", func(m *maker) both { return m.packed(gptq(3, -1), 96, 32).slice(0, 9, 90) }},
	{"GPTQ 3 bits, part", func(m *maker) both {
		return m.packed(gptq(3, -1), 96, 32).transpose().slice(1, 11, 93).slice(0, 3, 30)
	}},
	{"GPTQ 4 bits, list of groups", func(m *maker) both { return m.packed(gptq(4, 0), 96, 32).transpose() }},
	{"GPTQ 4 bits, list of groups, part", func(m *maker) both {
		return m.packed(gptq(4, 0), 96, 32).transpose().slice(1, 11, 93)
	}},
	{"GPTQ 8 bits", func(m *maker) both { return m.packed(gptq(8, -1), 96, 32).transpose() }},
	{"bitsandbytes over row ends", func(m *maker) both {
		return m.packed(packedKind{bits: 4, order: fp8.HighFirst, word: u8, e2m1: true,
			block: [2]int64{1, 64}, nested: true, groups: -1}, 1, 7*51).reshape(7, 51).transpose()
	}},
	{"bitsandbytes in rows", func(m *maker) both {
		return m.packed(packedKind{bits: 4, order: fp8.HighFirst, word: u8, e2m1: true,
			block: [2]int64{1, 64}, groups: -1}, 7, 128).slice(1, 3, 99)
	}},
	{"one grid for all", func(m *maker) both {
		return m.packed(packedKind{bits: 4, word: u8, block: [2]int64{1, 16}, shared: true,
			zeros: zeroKind{there: true, bits: 4, word: u8}, groups: -1}, 3, 6, 48)
	}},
	{"empty", func(m *maker) both {
		return m.packed(packedKind{bits: 4, block: [2]int64{1, 16}, groups: -1}, 5, 32).slice(0, 2,
			2)
	}},
}

var (
	nvfp4Down = packedKind{bits: 4, word: u8, down: true, e2m1: true, block: [2]int64{16, 1},
		scale: f8, second: 1, groups: -1}
	mxfp4 = packedKind{bits: 4, word: u8, e2m1: true, block: [2]int64{1, 32}, scale: e8m0,
		groups: -1}
	awq = packedKind{bits: 4, order: fp8.Interleaved, block: [2]int64{32, 1}, scale: f16,
		zeros: zeroKind{there: true, bits: 4, order: fp8.Interleaved, word: i32}, groups: -1}
)

// gptq has words along the rows and zero points along the columns.
func gptq(bits, groups int) packedKind {
	return packedKind{bits: bits, down: true, block: [2]int64{32, 1}, scale: f16, groups: groups,
		zeros: zeroKind{there: true, bits: bits, word: i32, plus: 1}}
}

func TestRecipesOfPackedWeightsNameEveryTensor(t *testing.T) {
	packed := func(change func(p *Packed)) Node {
		t.Helper()
		p := &Packed{
			Codes: stored("x.weight", i32, 4, 8), Shape: []int64{4, 64}, Pack: Pack{Bits: 4},
			Scales: Scales{Source: stored("x.scales", bf16, 4, 2), Block: [2]int64{1, 32}},
			Out:    bf16,
		}
		change(p)
		n, err := DequantizePacked(p)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	second := func(divides bool) func(p *Packed) {
		return func(p *Packed) {
			p.Scales.Second, p.Scales.Divides = stored("x.weight_scale_2", f32), divides
		}
	}
	zeros := func(p *Packed) {
		p.Zeros = Zeros{Source: stored("x.qzeros", i32, 4, 1), Pack: Pack{Bits: 4}}
	}
	columns := func(p *Packed) { p.Groups = Groups{stored("x.g_idx", i32, 64), 1} }
	rows := func(p *Packed) {
		p.Scales.Block, p.Groups = [2]int64{2, 32}, Groups{stored("x.g_idx", i32, 4), 0}
	}
	nested := func(p *Packed) {
		p.Scales.Source = stored("x.scales", u8, 4, 2)
		p.Scales.Nested = &Nested{
			Map: stored("x.map", f32, 256), Absmax: stored("x.absmax", f32, 1), Block: 8,
		}
	}
	must := must(t)
	for _, test := range []struct {
		n    Node
		want string
	}{
		{packed(func(*Packed) {}), "unpack(x.weight, 4 bits, ….scales, 1×32, bf16)"},
		{packed(second(false)), "unpack(x.weight, 4 bits, ….scales × ….weight_scale_2, 1×32, bf16)"},
		{packed(second(true)), "unpack(x.weight, 4 bits, ….scales ÷ ….weight_scale_2, 1×32, bf16)"},
		{packed(nested), "unpack(x.weight, 4 bits, ….scales × ….absmax, 1×32, bf16)"},
		{packed(zeros), "unpack(x.weight, 4 bits, ….scales, 1×32, zeros ….qzeros, bf16)"},
		{packed(columns), "unpack(x.weight, 4 bits, ….scales, columns by ….g_idx, bf16)"},
		{packed(rows), "unpack(x.weight, 4 bits, ….scales, rows by ….g_idx, bf16)"},
		{must(Transpose(packed(columns))),
			"transpose(unpack(x.weight, 4 bits, ….scales, columns by ….g_idx, bf16))"},
		{must(Transpose(packed(rows))),
			"transpose(unpack(x.weight, 4 bits, ….scales, rows by ….g_idx, bf16))"},
		{must(Transpose(packed(func(*Packed) {}))),
			"transpose(unpack(x.weight, 4 bits, ….scales, 1×32, bf16))"},
	} {
		if got := test.n.String(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// A size that does not fit the shape must never be read as something else.
func TestPackedSizesThatDoNotFitAreRefusedByName(t *testing.T) {
	fits := func() *Packed {
		return &Packed{
			Codes: stored("x.weight_packed", i32, 4, 8), Shape: []int64{4, 64},
			Pack:   Pack{Bits: 4},
			Scales: Scales{Source: stored("x.weight_scale", bf16, 4, 2), Block: [2]int64{1, 32}},
			Out:    bf16,
		}
	}
	if _, err := DequantizePacked(fits()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *Packed){
		"x.weight_packed: codes of 5 bits":   func(p *Packed) { p.Pack.Bits = 5 },
		"x.weight_packed: 128 bytes":         func(p *Packed) { p.Shape = []int64{4, 65} },
		"x.weight_packed: codes of shape":    func(p *Packed) { p.Shape = []int64{256} },
		"x.weight_packed: cannot dequantize": func(p *Packed) { p.Out = safetensors.F64 },
		"x.weight_scale: 8 scales":           func(p *Packed) { p.Scales.Block = [2]int64{1, 16} },
		"x.weight_scale: blocks":             func(p *Packed) { p.Scales.Block[0] = -1 },
		"x.weight_scale: scales of dtype I32": func(p *Packed) {
			p.Scales.Source = stored("x.weight_scale", i32, 4, 2)
		},
		"second: second scale": func(p *Packed) {
			p.Scales.Second = stored("second", f32, 2)
		},
		"zeros: 4 bytes": func(p *Packed) {
			p.Zeros.Source, p.Zeros.Pack = stored("zeros", i32, 1), Pack{Bits: 4, Down: true}
		},
		"g_idx: groups of dtype": func(p *Packed) {
			p.Groups = Groups{stored("g_idx", i32, 63), 1}
		},
		"x.weight_scale: 8 scales of shape [4 2] over": func(p *Packed) {
			p.Groups = Groups{stored("g_idx", i32, 64), 1}
			p.Scales.Block[0], p.Shape = 1, []int64{3, 64}
			p.Codes = stored("x.weight_packed", i32, 3, 8)
		},
		"map": func(p *Packed) {
			p.Scales.Source = stored("x.weight_scale", u8, 4, 2)
			p.Scales.Nested = &Nested{stored("map", f32, 255), stored("absmax", f32, 1), 256, 0}
		},
	} {
		p := fits()
		change(p)
		if _, err := DequantizePacked(p); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
}

func TestGroupsWithoutAScaleAreReadErrors(t *testing.T) {
	m := newMaker(t, 1)
	for _, bad := range []uint64{4, math.MaxUint32} {
		list := tensor{i32, []int64{8}, []uint64{0, 1, 2, 3, 0, bad, 2, 3}}
		n, err := DequantizePacked(&Packed{
			Codes: m.storeWords("codes", i32, make([]byte, 8)), Shape: []int64{2, 8},
			Pack: Pack{Bits: 4}, Groups: Groups{m.store("g_idx", list), 1}, Out: bf16,
			Scales: Scales{Source: m.store("scale", m.scales(f32, 2, 4)), Block: [2]int64{1, 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, env := range environments() {
			if err := n.ReadAt(env.read(), make([]byte, n.Size()), 0); err == nil ||
				!strings.Contains(err.Error(), "g_idx") {
				t.Errorf("group %d: error %v, want one that names g_idx", bad, err)
			}
		}
	}
}
