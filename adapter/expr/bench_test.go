package expr

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// everything is a cache that keeps all units. Unlike mapCache, its hits allocate nothing.
type everything map[UnitKey]*mapEntry

func (c everything) Get(u *Unit) (Entry, error) {
	if e := c[u.Key()]; e != nil {
		pinned.Add(1)
		return e, nil
	}
	e := &mapEntry{key: u.Key(), data: make([]byte, u.Size()), released: &pinned}
	if err := u.Fill(nil, e.data); err != nil {
		return nil, err
	}
	c[u.Key()] = e
	pinned.Add(1)
	return e, nil
}

// disk is a real file with full-size tensors.
type disk struct {
	steady.File
	file *os.File
	size int64
}

func (d *disk) Name() string { return d.file.Name() }
func (d *disk) Size() int64  { return d.size }

func (d *disk) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.file.ReadAt(p, off)
}

func newDisk(b *testing.B, size int64) *disk {
	f, err := os.CreateTemp(b.TempDir(), "shard")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	rng := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(block)) {
		for i := range block {
			block[i] = byte(rng.Uint32()) & 0xbf
		}
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	return &disk{file: f, size: size}
}

const (
	hidden = 7168
	inter  = 2048
)

func (d *disk) expert(b *testing.B, i int64, rows, cols int64) Node {
	w := &Source{Key: "w", File: d, Offset: i * inter * hidden, DType: f8,
		Shape: []int64{rows, cols}}
	s := &Source{Key: "s", File: d, Offset: 3 * inter * hidden, DType: f32,
		Shape: []int64{rows / 128, cols / 128}}
	return must(b)(Dequantize(w, s, DequantizeOptions{blocks, bf16}))
}

func must(t testing.TB) func(Node, error) Node {
	return func(n Node, err error) Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// BenchmarkReadAt reads recipes of full-size experts in requests of 1 MiB. "copy" is the speed of
// memory.
func BenchmarkReadAt(b *testing.B) {
	d := newDisk(b, 3*inter*hidden+1<<20)
	must := must(b)
	gate, up, down := d.expert(b, 0, inter, hidden), d.expert(b, 1, inter, hidden),
		d.expert(b, 2, hidden, inter)
	merged := must(Concat(1, must(Transpose(gate)), must(Transpose(up))))
	plain := must(Load(&Source{Key: "w", File: d, DType: bf16, Shape: []int64{inter, hidden}}))
	batch := must(Load(&Source{Key: "w", File: d, DType: bf16, Shape: []int64{1, inter, hidden}}))
	vector := must(Load(&Source{Key: "v", File: d, DType: bf16, Shape: []int64{inter}}))
	codes, scales, err := Quantize(plain, QuantizeOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("copy", benchmarkCopy)
	for _, r := range []struct {
		name string
		n    Node
	}{
		{"load", plain},
		{"dequantize", gate},
		{"dequantize-odd", must(Slice(gate, 1, 3, hidden))},
		{"merged-gate-up", merged},
		{"merged-down", must(Transpose(down))},
		{"merged-stack", must(Stack(merged, merged))},
		{"load-transposed", must(Transpose(plain))},
		{"un-merged", must(Index(must(Transpose(must(Slice(batch, 2, 0, hidden/2)))), 0))},
		{"cast-f32", must(Cast(plain, safetensors.F32))},
		{"swap-rows-to-pairs", must(SwapRows(plain, 16, 2))},
		{"swap-rows-to-halves", must(SwapRows(plain, 16, 64))},
		{"swap-all-rows", must(SwapRows(plain, 1, 2))},
		{"product-bf16", must(Product(plain, vector))},
		{"concat-rows", must(Concat(0, gate, up))},
		{"codes", codes},
		{"scales", scales},
	} {
		b.Run(r.name, func(b *testing.B) { benchmarkReads(b, r.n, 1<<20) })
	}
}

// BenchmarkSmallReads reads 4 KiB at a time.
func BenchmarkSmallReads(b *testing.B) {
	d := newDisk(b, 3*inter*hidden+1<<20)
	must := must(b)
	gate, up := d.expert(b, 0, inter, hidden), d.expert(b, 1, inter, hidden)
	b.Run("dequantize", func(b *testing.B) { benchmarkReads(b, gate, 4096) })
	merged := must(Concat(1, must(Transpose(gate)), must(Transpose(up))))
	b.Run("merged-gate-up", func(b *testing.B) { benchmarkReads(b, merged, 4096) })
}

func benchmarkReads(b *testing.B, n Node, size int64) {
	env := &testEnv{cache: everything{}}
	p := make([]byte, min(size, n.Size()))
	if err := n.ReadAt(env.read(), p, 0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	b.ResetTimer()
	for off := int64(0); b.Loop(); off += int64(len(p)) {
		if off+int64(len(p)) > n.Size() {
			off = 0
		}
		if err := n.ReadAt(env.read(), p, off); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkCopy(b *testing.B) {
	src, p := make([]byte, 28<<20), make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		copy(p, src[i%28<<20:])
	}
}

// BenchmarkFill fills the unit of an expert's tensor.
func BenchmarkFill(b *testing.B) {
	d := newDisk(b, 3*inter*hidden+1<<20)
	for _, shape := range [][2]int64{{inter, hidden}, {hidden, inter}} {
		b.Run(fmt.Sprintf("%d×%d", shape[0], shape[1]), func(b *testing.B) {
			n := must(b)(Transpose(d.expert(b, 0, shape[0], shape[1])))
			n.Units(0, 1, func(u *Unit) bool {
				dst := make([]byte, u.Size())
				b.SetBytes(u.Size())
				for b.Loop() {
					if err := u.Fill(nil, dst); err != nil {
						b.Fatal(err)
					}
				}
				return false
			})
		})
	}
}
