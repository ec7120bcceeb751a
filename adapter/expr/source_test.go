package expr

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// memory is a file of bytes that counts reads and fails on demand.
type memory struct {
	steady.File
	data  []byte
	fail  func(off int64, n int) (int, error) // called first; n, nil: read
	bytes atomic.Int64
	reads atomic.Int64
}

func (m *memory) Name() string { return "shard.safetensors" }
func (m *memory) Size() int64  { return int64(len(m.data)) }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	m.reads.Add(1)
	m.bytes.Add(int64(len(p)))
	if m.fail != nil {
		n, err := m.fail(off, len(p))
		if n < len(p) || err != nil {
			copy(p[:n], m.data[off:])
			return n, err
		}
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// mapCache keeps the newest units, up to limit bytes, and records the requested units.
type mapCache struct {
	env   *testEnv // for fills
	limit int64

	mu    sync.Mutex
	kept  []*mapEntry
	asked []*Unit
}

type mapEntry struct {
	key      UnitKey
	data     []byte
	released *atomic.Int64
}

func (e *mapEntry) Bytes() []byte { return e.data }
func (e *mapEntry) Release()      { e.released.Add(-1) }

var pinned atomic.Int64 // entries that were not released

func (c *mapCache) Get(u *Unit) (Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, u)
	for _, e := range c.kept {
		if e.key == u.Key() {
			pinned.Add(1)
			return e, nil
		}
	}
	data := bytes.Repeat([]byte{0xAB}, int(u.Size()))
	if err := u.Fill(c.env.fill(), data); err != nil {
		return nil, err
	}
	e := &mapEntry{u.Key(), data, &pinned}
	c.kept = append(c.kept, e)
	for total := int64(0); ; total = 0 {
		for _, e := range c.kept {
			total += int64(len(e.data))
		}
		if total <= c.limit {
			break
		}
		c.kept = c.kept[1:]
	}
	pinned.Add(1)
	return e, nil
}

// testEnv is an environment of reads and fills that does what its fields say, and what Alone does
// where they are nil.
type testEnv struct {
	Alone
	ctx      context.Context
	cache    keeper
	together func(...func() error) error
	readAt   func(f File, p []byte, off int64) (int, error)
	lend     func(f File, off int64, n, width int) ([]byte, Entry, int)
}

// keeper keeps units.
type keeper interface{ Get(u *Unit) (Entry, error) }

// read gives the environment of a read; nil stays nil.
func (e *testEnv) read() Env {
	if e == nil {
		return nil
	}
	return e
}

// fill gives the environment of a fill.
func (e *testEnv) fill() FillEnv {
	if e == nil {
		return nil
	}
	return e
}

func (e *testEnv) Err() error {
	if e.ctx == nil {
		return nil
	}
	return e.ctx.Err()
}

func (e *testEnv) ReadAt(f File, p []byte, off int64) (int, error) {
	if e.readAt == nil {
		return f.ReadAt(context.Background(), p, off)
	}
	return e.readAt(f, p, off)
}

func (e *testEnv) Lend(f File, off int64, n, width int) ([]byte, Entry, int) {
	if e.lend == nil {
		return e.Alone.Lend(f, off, n, width)
	}
	return e.lend(f, off, n, width)
}

func (e *testEnv) Unit(u *Unit) (Entry, error) {
	if e.cache == nil || e.Err() != nil {
		return nil, e.Err()
	}
	return e.cache.Get(u)
}

func (e *testEnv) Together(fns ...func() error) error {
	if e.together == nil {
		return e.Alone.Together(fns...)
	}
	return e.together(fns...)
}

// environments are the ways to evaluate.
func environments() map[string]*testEnv {
	many := &testEnv{together: goAll}
	return map[string]*testEnv{
		"nil":             nil,
		"no cache":        {ctx: context.Background()},
		"tiny cache":      {cache: &mapCache{limit: 4096}},
		"unlimited cache": {cache: &mapCache{limit: 1 << 40, env: many}},
		"lender":          {cache: &mapCache{limit: 4096, env: &testEnv{lend: lendSome}}, lend: lendSome},
	}
}

// loan is lent bytes, which are overwritten when they are released.
type loan []byte

func (l loan) Bytes() []byte { return l }

func (l loan) Release() {
	pinned.Add(-1)
	copy(l, bytes.Repeat([]byte{0xEE}, len(l)))
}

// lendSome lends the bytes of every second block of 700 bytes.
func lendSome(f File, off int64, n, width int) ([]byte, Entry, int) {
	const size = 700
	rest := min(n, int(size-off%size))
	whole := rest / width * width
	if off/size%2 == 0 || whole == 0 || f.(*memory).fail != nil {
		return nil, nil, rest
	}
	pinned.Add(1)
	l := loan(bytes.Clone(f.(*memory).data[off:][:whole]))
	return l, l, 0
}

// goAll runs the functions at the same time.
func goAll(fns ...func() error) error {
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// maker makes recipes together with their references, over one file.
type maker struct {
	t    testing.TB
	rng  *rand.Rand
	file *memory
	n    int
}

func newMaker(t testing.TB, seed uint64) *maker {
	return &maker{t: t, rng: rand.New(rand.NewPCG(seed, 1)), file: &memory{data: make([]byte, 7)}}
}

// both is a recipe and its reference.
type both struct {
	m *maker
	Node
	want tensor
}

// store appends a tensor to the file.
func (m *maker) store(key string, t tensor) *Source {
	src := &Source{Key: key, File: m.file, Offset: int64(len(m.file.data)), DType: t.dtype,
		Shape: t.shape}
	m.file.data = append(m.file.data, t.bytes()...)
	return src
}

// random makes a tensor of random bits, few of them NaN or infinite.
func (m *maker) random(d safetensors.DType, shape ...int64) tensor {
	t := tensor{dtype: d, shape: shape}
	positions(shape, func([]int64) { t.bits = append(t.bits, m.rng.Uint64()&(1<<d.Bits()-1)) })
	return t
}

// scales makes scales of usual sizes, with some unusual ones.
func (m *maker) scales(d safetensors.DType, shape ...int64) tensor {
	odd := []float64{0, 1, -1, 1e-40, 3e38, 0.5}
	t := tensor{dtype: d, shape: shape}
	positions(shape, func([]int64) {
		v := m.rng.ExpFloat64() / 100
		switch {
		case d == safetensors.F8E8M0 || d == safetensors.U8:
			t.bits = append(t.bits, 120+m.rng.Uint64N(16))
			return
		case m.rng.IntN(8) == 0:
			v = odd[m.rng.IntN(len(odd))]
		}
		t.bits = append(t.bits, encodeBits(v, d))
	})
	return t
}

func (m *maker) key(kind string) string {
	m.n++
	return "layers." + string(rune('a'+m.n%26)) + "." + kind
}

func (m *maker) load(d safetensors.DType, shape ...int64) both {
	want := m.random(d, shape...)
	return m.both(want)(Load(m.store(m.key("weight"), want)))
}

func (m *maker) both(want tensor) func(Node, error) both {
	return func(n Node, err error) both {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
		return both{m, n, want}
	}
}

// quantized describes a stored weight and its scales.
type quantized struct {
	codes, scale, out safetensors.DType
	block             [2]int64
	grid              []int64 // shape of the weight's rank; nil: as needed
	stored            []int64 // shape of the same scales in the file; nil: grid
	bare              bool    // there are no scales
}

func (m *maker) dequantize(q quantized, shape ...int64) both {
	m.t.Helper()
	q.codes, q.scale, q.out = orDType(q.codes, safetensors.F8E4M3),
		orDType(q.scale, safetensors.F32), orDType(q.out, safetensors.BF16)
	w := m.random(q.codes, shape...)
	if q.grid == nil {
		q.grid = gridFor(shape, q.block)
	}
	key := m.key("weight")
	if q.bare {
		one := func(_, _, _ int64) float64 { return 1 }
		return m.both(dequantizeTensor(w, one, q.block, q.out))(Dequantize(m.store(key, w), nil,
			DequantizeOptions{Out: q.out}))
	}
	s := m.scales(q.scale, q.grid...)
	want := dequantizeTensor(w, s.scaleOf(), q.block, q.out)
	if q.stored != nil {
		s = s.reshape(q.stored...)
	}
	return m.both(want)(Dequantize(m.store(key, w), m.store(key+"_scale_inv", s),
		DequantizeOptions{q.block, q.out}))
}

func orDType(d, otherwise safetensors.DType) safetensors.DType {
	if d == safetensors.Invalid {
		return otherwise
	}
	return d
}

func gridFor(shape []int64, block [2]int64) []int64 {
	grid := append([]int64(nil), shape...)
	for i, b := range block {
		size := &grid[len(grid)-2+i]
		if b == 0 {
			*size = 1
		} else {
			*size = (*size + b - 1) / b
		}
	}
	return grid
}

// scaleOf returns the scales of a grid. One matrix of scales applies to all.
func (t tensor) scaleOf() func(e, i, j int64) float64 {
	return func(e, i, j int64) float64 {
		p := []int64{e, i, j}[3-len(t.shape):]
		if t.shape[0] == 1 && len(t.shape) == 3 {
			p[0] = 0
		}
		return decodeBits(t.at(p), t.dtype)
	}
}

func (b both) transpose() both {
	b.m.t.Helper()
	return b.m.both(b.want.transpose())(Transpose(b.Node))
}

func (b both) slice(axis int, lo, hi int64) both {
	b.m.t.Helper()
	return b.m.both(b.want.slice(axis, lo, hi))(Slice(b.Node, axis, lo, hi))
}

func (b both) index(i int64) both {
	b.m.t.Helper()
	return b.m.both(b.want.index(i))(Index(b.Node, i))
}

func (b both) reshape(shape ...int64) both {
	b.m.t.Helper()
	return b.m.both(b.want.reshape(shape...))(Reshape(b.Node, shape...))
}

func (b both) cast(d safetensors.DType) both {
	b.m.t.Helper()
	return b.m.both(b.want.cast(d))(Cast(b.Node, d))
}

func (b both) multiply(by float32, d safetensors.DType) both {
	b.m.t.Helper()
	return b.m.both(b.want.multiply(by, d))(Multiply(b.Node, by, d))
}

func (b both) swapRows(outer, inner int64) both {
	b.m.t.Helper()
	return b.m.both(b.want.swapRows(outer, inner))(SwapRows(b.Node, outer, inner))
}

func (b both) product(by both) both {
	b.m.t.Helper()
	return b.m.both(b.want.product(by.want))(Product(b.Node, by.Node))
}

func split(bs []both) (nodes []Node, want []tensor) {
	for _, b := range bs {
		nodes, want = append(nodes, b.Node), append(want, b.want)
	}
	return nodes, want
}

func (m *maker) concat(axis int, bs ...both) both {
	m.t.Helper()
	nodes, want := split(bs)
	return m.both(concatTensors(axis, want...))(Concat(axis, nodes...))
}

func (m *maker) stack(bs ...both) both {
	m.t.Helper()
	nodes, want := split(bs)
	return m.both(stackTensors(want...))(Stack(nodes...))
}

// large is a weight without a whole reference.
type large struct {
	both
	codes, scales tensor
}

func (m *maker) dequantizeLarge(rows, cols int64) large {
	w, s := m.random(f8, rows, cols), m.scales(f32, gridFor([]int64{rows, cols}, blocks)...)
	n := m.both(tensor{})(Dequantize(m.store("w", w), m.store("w_scale_inv", s),
		DequantizeOptions{blocks, bf16}))
	return large{n, w, s}
}

// element returns the reference of one element.
func (l large) element(i, j int64) uint64 {
	code := tensor{f8, []int64{1, 1}, []uint64{l.codes.at([]int64{i, j})}}
	scale := func(_, _, _ int64) float64 {
		return decodeBits(l.scales.at([]int64{i / 128, j / 128}), f32)
	}
	return dequantizeTensor(code, scale, blocks, bf16).bits[0]
}

// withNode returns another node of the same maker.
func (b both) withNode(n Node, err error) both {
	b.m.t.Helper()
	return b.m.both(tensor{})(n, err)
}
