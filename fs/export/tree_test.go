package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"testing"
	"testing/fstest"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// fakeTree is a Tree of files in memory, by name.
type fakeTree map[string]*fakeFile

// fakeFile is a file in memory. If failAt is positive, bytes from failAt on cannot be read.
type fakeFile struct {
	*bytes.Reader
	failAt int64
}

var errFake = errors.New("the source is gone")

func (f *fakeFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if f.failAt > 0 && off+int64(len(p)) > f.failAt {
		return 0, errFake
	}
	return f.ReadAt(p, off)
}

// Open opens a file or directory.
func (t fakeTree) Open(name string) (iofs.File, error) {
	files := fstest.MapFS{}
	for name := range t {
		files[name] = &fstest.MapFile{Data: t.bytes(name), Mode: 0o444}
	}
	return files.Open(name)
}

// ReaderAt opens a file.
func (t fakeTree) ReaderAt(name string) (fs.ReaderAtContext, error) {
	if f := t[name]; f != nil {
		return f, nil
	}
	return nil, iofs.ErrNotExist
}

// Views returns one view, in the directory of config.json.
func (t fakeTree) Views() []fs.View {
	v := fs.View{Plan: &adapter.Plan{Options: adapter.Options{Layout: "native"}}}
	if t["config.json"] == nil && t["hf/config.json"] != nil {
		v.Dir = "hf"
	}
	return []fs.View{v}
}

// Fingerprint returns the same value for all fake trees.
func (t fakeTree) Fingerprint() (string, error) { return sumOf("fake"), nil }

func (t fakeTree) manifest(tb testing.TB) *Manifest {
	tb.Helper()
	m, err := manifestOf(t)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// sumOf returns the SHA-256 of a text as a manifest has it.
func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// testChunk is small, so that files have many pieces.
const testChunk = 64 << 10

func (t fakeTree) export(ctx context.Context, dir string, o Options) (*Manifest, error) {
	o.chunk = testChunk
	return Write(ctx, t, dir, o)
}

// newFakeTree returns files whose sizes are near multiples of pieces and of blocks.
func newFakeTree(t *testing.T) fakeTree {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	tree := fakeTree{}
	add := func(name string, data []byte) { tree[name] = &fakeFile{Reader: bytes.NewReader(data)} }
	for _, n := range []int{
		0, 1, 4095, 4096, 4097, testChunk - 1, testChunk, testChunk + 1, 5*testChunk + 12345,
	} {
		add(fmt.Sprintf("side-%d.bin", n), randomBytes(rng, n))
	}
	for i, n := range []int64{1, 2000, 3 * testChunk} {
		name := fmt.Sprintf("model-%05d-of-00003.safetensors", i+1)
		add(name, fakeShard(t, rng, n))
		add("hf/"+name, fakeShard(t, rng, 2*n))
	}
	add("config.json", []byte("{}"))
	add("hf/config.json", []byte("{ }"))
	add(indexName, []byte(`{"metadata":{"total_size":1},"weight_map":{`+
		`"a":"model-00001-of-00003.safetensors","b":"model-00002-of-00003.safetensors",`+
		`"empty":"model-00003-of-00003.safetensors"}}`))
	return tree
}

// newTinyTree returns a tree of a few small files of every kind.
func newTinyTree(t testing.TB) fakeTree {
	t.Helper()
	tree := fakeTree{}
	add := func(name string, data []byte) { tree[name] = &fakeFile{Reader: bytes.NewReader(data)} }
	rng := rand.New(rand.NewPCG(5, 6))
	weights := map[string]string{}
	for i, dtype := range []safetensors.DType{safetensors.BF16, safetensors.F32} {
		file := fmt.Sprintf("model-%05d-of-00002.safetensors", i+1)
		h, head, err := safetensors.NewHeader([]safetensors.Tensor{
			{Name: fmt.Sprint("layers.", i, ".weight"), DType: dtype, Shape: []int64{3, 5}},
			{Name: fmt.Sprint("layers.", i, ".empty"), DType: dtype, Shape: []int64{0}},
			{Name: fmt.Sprint("layers.", i, ".bias"), DType: safetensors.F32, Shape: []int64{5}},
		}, nil, 8)
		if err != nil {
			t.Fatal(err)
		}
		add("hf/"+file, append(head, randomBytes(rng, int(h.Tensors[len(h.Tensors)-1].End))...))
		for _, x := range h.Tensors {
			weights[x.Name] = file
		}
	}
	index, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"total_size": 100}, "weight_map": weights,
	})
	if err != nil {
		t.Fatal(err)
	}
	add("hf/"+indexName, index)
	add("hf/config.json", []byte(`{"model_type":"tiny"}`))
	add("hf/1_Pooling/config.json", []byte(`{}`))
	add("hf/empty.txt", nil)
	return tree
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// fakeShard returns a safetensors file with tensors of n, 0 and 7n bytes.
func fakeShard(t *testing.T, rng *rand.Rand, n int64) []byte {
	t.Helper()
	h, head, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "a", DType: safetensors.U8, Shape: []int64{n}},
		{Name: "empty", DType: safetensors.U8, Shape: []int64{0, 3}},
		{Name: "b", DType: safetensors.U8, Shape: []int64{7, n}},
	}, nil, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, randomBytes(rng, int(h.Tensors[2].End))...)
}

// bytes reads a whole file.
func (t fakeTree) bytes(name string) []byte {
	f := t[name]
	if f == nil {
		return nil
	}
	data := make([]byte, f.Size())
	f.ReadAt(data, 0)
	return data
}
