package expr

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// unitsOf returns the units of a whole node.
func unitsOf(n Node) (units []*Unit) {
	n.Units(0, n.Size(), func(u *Unit) bool {
		units = append(units, u)
		return true
	})
	return units
}

func TestUnitsComeInTheOrderOfTheBytes(t *testing.T) {
	m := newMaker(t, 1)
	n := m.stack(m.merged(20, 30, bf16), m.merged(20, 30, bf16), m.merged(20, 30, bf16))
	var offsets []int64
	for _, u := range unitsOf(n) {
		offsets = append(offsets, u.Key().Offset)
	}
	if len(offsets) != 6 || !slices.IsSorted(offsets) {
		t.Errorf("offsets of the units: %v", offsets)
	}
	expert, row := n.Size()/3, int64(2*20*2)
	for _, test := range []struct {
		off, n int64
		want   []int64
	}{
		{0, 1, offsets[:1]},
		{row/2 - 1, 1, offsets[:1]},
		{row / 2, 1, offsets[1:2]},
		{row/2 - 1, 2, offsets[:2]},
		{row - 1, 2, offsets[:2]},
		{expert - 1, 1, offsets[1:2]},
		{expert - 1, 2, offsets[1:3]},
		{expert, row / 2, offsets[2:3]},
		{expert, row, offsets[2:4]},
	} {
		var got []int64
		n.Units(test.off, test.n, func(u *Unit) bool {
			got = append(got, u.Key().Offset)
			return true
		})
		if !slices.Equal(got, test.want) {
			t.Errorf("[%d, %d): %v, want %v", test.off, test.off+test.n, got, test.want)
		}
	}
}

func TestUnitsAndRangesStopWhenTold(t *testing.T) {
	for i, r := range allRecipes {
		n := r.make(newMaker(t, uint64(i)))
		calls := 0
		more := n.Units(0, n.Size(), func(*Unit) bool { calls++; return false })
		if more != (calls == 0) || calls > 1 {
			t.Errorf("%s: %d units after the first said no, %v", r.name, calls, more)
		}
		calls = 0
		more = n.Ranges(0, n.Size(), func(File, int64, int64) bool { calls++; return false })
		if more != (calls == 0) || calls > 1 {
			t.Errorf("%s: %d ranges after the first said no, %v", r.name, calls, more)
		}
	}
}

func TestFillWorksInStripsHandedToGo(t *testing.T) {
	m := newMaker(t, 1)
	want := m.random(safetensors.U8, 1024, 96)
	n := m.both(want)(Load(m.store("w", want))).transpose()
	u := unitsOf(n)[0]
	strips := 0
	env := &testEnv{together: func(fns ...func() error) error {
		strips += len(fns)
		return goAll(fns...)
	}}
	dst := poisoned(u.Size())
	if err := u.Fill(env, dst); err != nil || !bytes.Equal(dst, n.want.bytes()) {
		t.Errorf("the unit is not the transposed tensor: %v", err)
	}
	if strips < 8 {
		t.Errorf("%d strips, want 8 or more", strips)
	}
}

func TestStripsAreNeverLargerThanTheLimit(t *testing.T) {
	for _, shape := range [][2]int{{2048, 7168}, {7168, 2048}, {1, 1 << 30}, {1 << 30, 1},
		{129280, 7168}, {3, 5}} {
		for _, item := range []int{1, 2, 4, 8} {
			g := region{rows: shape[0], cols: shape[1], item: item}
			rows := g.stripRows()
			if rows < 1 || rows > 1 && rows*shape[1]*item > strip {
				t.Errorf("%v of %d bytes: strips of %d rows", shape, item, rows)
			}
			if count := (shape[0] + rows - 1) / rows; count < strips && shape[0] >= 64*strips {
				t.Errorf("%v of %d bytes: %d strips", shape, item, count)
			}
		}
	}
}

func TestFillRefusesABufferOfAnotherSize(t *testing.T) {
	m := newMaker(t, 1)
	codes, _ := m.quantize(m.load(bf16, 20, 30).transpose(), [2]int64{}, Amax)
	for _, u := range unitsOf(codes) {
		for _, size := range []int64{0, u.Size() - 1, u.Size() + 1} {
			if err := u.Fill(nil, make([]byte, size)); err == nil {
				t.Errorf("%s of %d bytes was filled into %d", u, u.Size(), size)
			}
		}
	}
}

func TestFillFailsIfAStripFails(t *testing.T) {
	broken := errors.New("input/output error")
	m := newMaker(t, 1)
	codes, _ := m.quantize(m.load(bf16, 300, 200).transpose(), [2]int64{16, 16}, Amax)
	for _, u := range unitsOf(codes) {
		for _, run := range []func(...func() error) error{nil, goAll} {
			var once sync.Once
			env := &testEnv{together: run,
				readAt: func(f File, p []byte, off int64) (n int, err error) {
					n, err = f.ReadAt(context.Background(), p, off)
					once.Do(func() { n, err = 0, broken })
					return n, err
				}}
			if err := u.Fill(env, poisoned(u.Size())); !errors.Is(err, broken) {
				t.Errorf("%s: %v", u, err)
			}
		}
	}
}

func TestFillStopsWhenCancelled(t *testing.T) {
	m := newMaker(t, 1)
	codes, _ := m.quantize(m.load(bf16, 300, 200).transpose(), [2]int64{16, 16}, Amax)
	for _, u := range unitsOf(codes) {
		ctx, cancel := context.WithCancel(context.Background())
		reads := 0
		env := &testEnv{ctx: ctx, readAt: func(f File, p []byte, off int64) (int, error) {
			reads++
			cancel()
			return f.ReadAt(context.Background(), p, off)
		}}
		if err := u.Fill(env, poisoned(u.Size())); !errors.Is(err, context.Canceled) || reads != 1 {
			t.Errorf("%s: %v after %d reads", u, err, reads)
		}
	}
}

func TestEveryReadGoesThroughTheEnvironment(t *testing.T) {
	for i, r := range allRecipes {
		m := newMaker(t, uint64(i))
		n := r.make(m)
		for _, cached := range []bool{false, true} {
			m.file.reads.Store(0)
			seen := int64(0)
			env := &testEnv{readAt: func(f File, p []byte, off int64) (int, error) {
				seen++
				return f.ReadAt(context.Background(), p, off)
			}}
			if cached {
				env.cache = &mapCache{limit: 1 << 30, env: &testEnv{readAt: env.readAt}}
			}
			checkRange(t, env, n, n.want.bytes(), 0, n.Size())
			if reads := m.file.reads.Load(); reads != seen {
				t.Errorf("%s: %d reads, %d of them through the environment", r.name, reads, seen)
			}
		}
	}
}

// A cached unit is read once, for all dtypes, both halves of a file, and slices of the result.
func TestSourceBytesAreReadOnce(t *testing.T) {
	m := newMaker(t, 1)
	w, s := m.random(f8, 64, 96), m.scales(f32, 4, 6)
	weight, scale := m.store("w", w), m.store("w_scale_inv", s)
	env := &testEnv{cache: &mapCache{limit: 1 << 30}}
	m.file.bytes.Store(0)
	for _, d := range []safetensors.DType{bf16, f16, f32} {
		want := dequantizeTensor(w, s.scaleOf(), [2]int64{16, 16}, d)
		n := m.both(want)(Dequantize(weight, scale,
			DequantizeOptions{[2]int64{16, 16}, d})).transpose()
		for off := int64(0); off < n.Size(); off += 1000 {
			checkRange(t, env, n, n.want.bytes(), off, min(off+1000, n.Size()))
		}
	}
	if got, want := m.file.bytes.Load(), int64(64*96+4*6*4); got != want {
		t.Errorf("read %d bytes of a weight and scales of %d", got, want)
	}
}

// gate_proj and up_proj of one expert of a merged tensor are side by side in each row.
func TestPartsOfARowShareTheirUnit(t *testing.T) {
	m := newMaker(t, 1)
	experts := m.load(bf16, 3, 40, 66)
	m.file.bytes.Store(0)
	env := &testEnv{cache: &mapCache{limit: 1 << 30}}
	for _, cut := range [][2]int64{{0, 33}, {33, 66}, {10, 60}} {
		n := experts.slice(2, cut[0], cut[1]).transpose().index(1)
		checkRange(t, env, n, n.want.bytes(), 0, n.Size())
	}
	if got := m.file.bytes.Load(); got != 40*66*2 {
		t.Errorf("read %d bytes of a matrix of %d", got, 40*66*2)
	}
	narrow := experts.slice(2, 5, 9).transpose().index(1)
	checkRange(t, env, narrow, narrow.want.bytes(), 0, narrow.Size())
	if n := unitsOf(narrow)[0].Size(); n != 40*4*2 {
		t.Errorf("the unit of a narrow part has %d bytes, want its own %d", n, 40*4*2)
	}
}

func TestContiguousReadsTakeOnlyWhatTheyNeed(t *testing.T) {
	m := newMaker(t, 1)
	n := m.dequantize(quantized{block: blocks}, 300, 256)
	env := &testEnv{cache: everything{}}
	checkRange(t, env, n, n.want.bytes(), 0, 2) // the grid
	for _, r := range [][2]int64{{0, 2}, {1, 3}, {512, 1024}, {500, 1500}, {0, n.Size()}} {
		m.file.bytes.Store(0)
		checkRange(t, env, n, n.want.bytes(), r[0], r[1])
		if got, want := m.file.bytes.Load(), (r[1]+1)/2-r[0]/2; got != want {
			t.Errorf("[%d, %d): read %d bytes of codes, want %d", r[0], r[1], got, want)
		}
	}
}

func TestUnitsHaveNames(t *testing.T) {
	m := newMaker(t, 1)
	key := m.store("experts", m.random(bf16, 3, 20, 30))
	n, err := Load(key)
	if err != nil {
		t.Fatal(err)
	}
	turned := must(t)(Transpose(n))
	codes, _, err := Quantize(must(t)(Index(turned, 2)), QuantizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder()
	d := m.dequantize(quantized{block: blocks}, 20, 30)
	checkRange(t, &r.env, d, d.want.bytes(), 0, d.Size())
	var names []string
	for _, u := range slices.Concat(unitsOf(turned), unitsOf(codes), r.asked[:1]) {
		names = append(names, u.Key().Kind.String()+": "+u.String())
	}
	want := []string{
		"transposed: transposed matrix 0 of experts",
		"transposed: transposed matrix 1 of experts",
		"transposed: transposed matrix 2 of experts",
		"computed: computed scales of transpose(experts[2, :, :])",
		"transposed: transposed experts[2, :, :]",
		"grid: scales layers.b.weight_scale_inv",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
}

func TestPackedElementsAreShownAsTheyAre(t *testing.T) {
	f := &memory{data: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	n := must(t)(Load(&Source{Key: "packed", File: f, Offset: 2, DType: safetensors.F4,
		Shape: []int64{3, 4}}))
	for _, b := range []Node{n, must(t)(Reshape(n, 4, 3)), must(t)(Reshape(n, 12))} {
		checkRange(t, nil, b, f.data[2:], 0, 6)
		checkRange(t, nil, b, f.data[2:], 1, 4)
	}
}

// sparse is a file that is larger than its data.
type sparse struct{ memory }

func (*sparse) Size() int64 { return 1 << 50 }

// A sparse file of a few blocks on disk can declare as many matrices as it likes.
func TestStacksOfVeryManyMatricesTakeLittleMemory(t *testing.T) {
	const n = 1 << 34
	src := func(d safetensors.DType, shape ...int64) *Source {
		return &Source{Key: "weight", File: &sparse{}, DType: d, Shape: shape}
	}
	scales := Scales{Source: src(safetensors.U8, n, 2, 1), Block: [2]int64{1, 32}}
	packed := &Packed{Codes: src(safetensors.U8, n, 2, 16), Shape: []int64{n, 2, 32},
		Pack: Pack{Bits: 4}, Values: &e2m1, Scales: scales, Out: bf16}
	down := *packed
	down.Pack.Down = true
	down.Codes = src(safetensors.U8, n, 1, 32)
	for name, make := range map[string]func() (Node, error){
		"a load": func() (Node, error) { return Load(src(bf16, n, 2, 2)) },
		"FP8": func() (Node, error) {
			return Dequantize(src(safetensors.F8E4M3, n, 2, 2), src(f32, n, 1, 1),
				DequantizeOptions{Out: bf16})
		},
		"a pack":              func() (Node, error) { return DequantizePacked(packed) },
		"a pack down columns": func() (Node, error) { return DequantizePacked(&down) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		node, err := make()
		if err == nil {
			_, err = Transpose(node)
		}
		runtime.ReadMemStats(&after)
		if bytes := after.TotalAlloc - before.TotalAlloc; err != nil || bytes > 4<<20 {
			t.Errorf("%s: %d bytes, error %v", name, bytes, err)
		}
	}
}
