package export

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// flipBit changes one bit of a tensor in a safetensors file.
func flipBit(t *testing.T, path, key string, rng *rand.Rand) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range h.Tensors {
		if x.Name == key {
			data[h.DataOffset+x.Begin+rng.Int64N(x.End-x.Begin)] ^= 1 << rng.IntN(8)
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s: no tensor %s", path, key)
}

// wantOnly checks that each of these tensors differs, and nothing else.
func wantOnly(t *testing.T, what string, found *Verification, err error, tensors ...string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if len(found.Differences) != len(tensors) {
		t.Fatalf("%s: found %v, want %q", what, found.Differences, tensors)
	}
	for _, name := range tensors {
		n := 0
		for _, d := range found.Differences {
			if strings.HasPrefix(d.File+" "+d.Tensor, name) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: found %v, want one at %s", what, found.Differences, name)
		}
	}
}

// A wrong bit is found in the source, in an export, and in a mount, and its tensor is named.
func TestVerifyFindsOneFlippedBit(t *testing.T) {
	const key = "model.layers.1.mlp.experts.0.down_proj.weight"
	native := "native/model.safetensors model.layers.1.mlp.experts.down_projs"
	hf := "hf/model.safetensors " + key
	views := []fs.View{layout("native", "native", 0), layout("hf", "hf", 0)}
	dir := writeSource(t, synth.Options{
		Layers: 2, Experts: 2, Hidden: 128, ExpertIntermediate: 96, Single: true,
	})
	f := openViews(t, dir, views...)
	export := t.TempDir()
	if _, err := Write(context.Background(), f, export, Options{}); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(8, 5))
	for range 4 {
		rotten := t.TempDir()
		if err := os.CopyFS(rotten, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		flipBit(t, filepath.Join(rotten, "model.safetensors"), key, rng)
		r := openViews(t, rotten, views...)
		found, err := VerifyTree(ctx, r, export, VerifyOptions{})
		wantOnly(t, "source", found, err, native, hf)
		root := mounted(t, r)
		found, err = VerifyTree(ctx, f, root, VerifyOptions{})
		wantOnly(t, "mount", found, err, native, hf)

		rotten = t.TempDir()
		if err := os.CopyFS(rotten, os.DirFS(export)); err != nil {
			t.Fatal(err)
		}
		flipBit(t, filepath.Join(rotten, "hf", "model.safetensors"), key, rng)
		found, err = Verify(ctx, rotten, VerifyOptions{})
		wantOnly(t, "export against its manifest", found, err, hf)
		found, err = VerifyTree(ctx, f, rotten, VerifyOptions{})
		wantOnly(t, "export against the source", found, err, hf)
	}
	found, err := Verify(ctx, export, VerifyOptions{})
	wantOnly(t, "untouched", found, err)
}
