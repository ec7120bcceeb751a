package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	origin "github.com/dequantfs/dequantfs/adapter/source"
)

// gates lets calls go on in an order of its own: as soon as most of them wait, or no other call has
// come for a while, one of them goes on.
type gates struct {
	most int
	rng  *rand.Rand
	wait time.Duration // before every call, instead

	mu      sync.Mutex
	waiting []chan struct{}
	peak    int
}

// pass waits for its turn.
func (g *gates) pass(ctx context.Context) {
	if g.wait > 0 {
		time.Sleep(g.wait)
		return
	}
	turn := make(chan struct{})
	g.mu.Lock()
	g.waiting = append(g.waiting, turn)
	g.peak = max(g.peak, len(g.waiting))
	if len(g.waiting) >= g.most {
		g.next()
	}
	g.mu.Unlock()
	for {
		select {
		case <-turn:
			return
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Millisecond):
			g.mu.Lock()
			g.next()
			g.mu.Unlock()
		}
	}
}

// next lets one call go on. The caller holds mu.
func (g *gates) next() {
	if len(g.waiting) == 0 {
		return
	}
	i := g.rng.IntN(len(g.waiting))
	close(g.waiting[i])
	g.waiting = slices.Delete(g.waiting, i, i+1)
}

// gatedStore opens and reads files in the order of its gates.
type gatedStore struct {
	origin.Store
	gates *gates
}

func (s *gatedStore) Open(ctx context.Context, name string) (origin.File, error) {
	if filepath.Ext(name) == ".safetensors" {
		s.gates.pass(ctx)
	}
	f, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &gatedFile{f, s.gates}, nil
}

type gatedFile struct {
	origin.File
	gates *gates
}

func (f *gatedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if filepath.Ext(f.Name()) == ".safetensors" {
		f.gates.pass(ctx)
	}
	return f.File.ReadAt(ctx, p, off)
}

// openGated opens a source whose shards answer in the order of gates.
func openGated(tb testing.TB, dir string, g *gates) (*adapter.Checkpoint, error) {
	tb.Helper()
	s, _, err := origin.Open(dir, origin.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	c, err := adapter.OpenStore(tb.Context(), &gatedStore{s, g}, adapter.OpenOptions{})
	if err == nil {
		tb.Cleanup(func() { c.Close() })
	}
	return c, err
}

func writeFile(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		tb.Fatal(err)
	}
}

func replaceByFolder(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// shardName is the name of a shard of manyShards.
func shardName(i, of int) string { return fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, of) }

// manyShards writes a source of some shards, one of which has a header of more than is read ahead.
func manyShards(tb testing.TB, shards int) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	writeFile(tb, filepath.Join(dir, "config.json"), []byte(`{"model_type":"deepseek_v3"}`))
	keys := map[string]string{}
	for i := range shards {
		tensors := 2
		if i == 3 {
			tensors = 3000
		}
		var list []safetensors.Tensor
		for j := range tensors {
			key := fmt.Sprintf("layers.%d.a_long_name_of_a_tensor.%d.weight", i, j)
			list = append(list, safetensors.Tensor{Name: key, DType: safetensors.U8,
				Shape: []int64{2, 2}})
			keys[key] = shardName(i, shards)
		}
		_, data, err := safetensors.NewHeader(list, nil, 8)
		if err != nil {
			tb.Fatal(err)
		}
		data = append(data, make([]byte, 4*tensors)...)
		writeFile(tb, filepath.Join(dir, shardName(i, shards)), data)
	}
	b, err := (&safetensors.Index{WeightMap: keys}).Encode()
	if err != nil {
		tb.Fatal(err)
	}
	writeFile(tb, filepath.Join(dir, index), b)
	return dir
}

// describe lists the tensors of a checkpoint.
func describe(c *adapter.Checkpoint) (lines []string) {
	for _, t := range c.Tensors() {
		lines = append(lines, fmt.Sprint(t.Shard, t.Key, t.DType, t.Shape, t.File.Name(), t.Offset))
	}
	return lines
}

func TestShardsAnswerInAnyOrder(t *testing.T) {
	const shards = 40
	dir := manyShards(t, shards)
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := describe(c)
	for seed := range uint64(5) {
		g := &gates{most: 16, rng: rand.New(rand.NewPCG(seed, 7))}
		c, err := openGated(t, dir, g)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, describe(c)); diff != "" {
			t.Errorf("seed %d: %s", seed, diff)
		}
		if g.peak < 2 || g.peak > 16 {
			t.Errorf("seed %d: %d calls at the same time", seed, g.peak)
		}
	}
}

// The error is that of the first shard by name, whichever of them answers first.
func TestTheFirstOfSeveralWrongShardsIsNamed(t *testing.T) {
	const shards = 40
	for what, spoil := range map[string]func(path string){
		"headers":    func(path string) { writeFile(t, path, []byte("\x08\x00\x00\x00\x00\x00\x00\x00no json!")) },
		"not a file": func(path string) { replaceByFolder(t, path) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := manyShards(t, shards)
			for _, i := range []int{39, 17, 9, 20} {
				spoil(filepath.Join(dir, shardName(i, shards)))
			}
			_, want := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
			if want == nil {
				t.Fatal("no error")
			}
			for seed := range uint64(5) {
				g := &gates{most: 16, rng: rand.New(rand.NewPCG(seed, 8))}
				if _, err := openGated(t, dir, g); err == nil || err.Error() != want.Error() {
					t.Errorf("seed %d: %v, want %v", seed, err, want)
				}
			}
		})
	}
}

func TestOpeningEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := adapter.Open(ctx, manyShards(t, 4), adapter.OpenOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkOpenSlowSource opens 163 shards of a source that answers each call after 5 ms.
func BenchmarkOpenSlowSource(b *testing.B) {
	dir := manyShards(b, 163)
	for b.Loop() {
		if _, err := openGated(b, dir, &gates{wait: 5 * time.Millisecond}); err != nil {
			b.Fatal(err)
		}
	}
}
