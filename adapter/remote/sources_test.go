package remote

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// openStore opens a source that must open.
func openStore(t *testing.T, name string) source.Store {
	t.Helper()
	s, _, err := Open(t.Context(), name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// namesIn lists a folder of a store, with a slash after folders.
func namesIn(t *testing.T, s source.Store, folder string) (list []string) {
	t.Helper()
	l, err := s.List(t.Context(), folder, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.Entries {
		if e.Dir {
			e.Name += "/"
		}
		list = append(list, e.Name)
	}
	slices.Sort(list)
	return list
}

// openFile opens an object that must open.
func openFile(t *testing.T, s source.Store, name string) source.File {
	t.Helper()
	f, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// quantizedFolder writes a quantized checkpoint into a folder.
func quantizedFolder(t *testing.T, o synth.Options) string {
	t.Helper()
	dir := t.TempDir()
	o.Hidden, o.ExpertIntermediate, o.DenseIntermediate, o.Vocab = 128, 128, 128, 128
	if err := synth.DeepSeek(o).Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// openBoth opens a source and the folder with its files.
func openBoth(t *testing.T, name, dir string) (remote, local *adapter.Checkpoint) {
	t.Helper()
	s, single, err := Open(t.Context(), name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	remote, err = adapter.OpenStore(t.Context(), s, adapter.OpenOptions{Single: single})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = remote.Close() })
	local, err = adapter.Open(t.Context(), filepath.Join(dir, single), adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	return remote, local
}

// sameTensors compares all tensors of a remote checkpoint with those of a local one.
func sameTensors(t *testing.T, remote, local *adapter.Checkpoint) {
	t.Helper()
	if len(remote.Tensors()) != len(local.Tensors()) || len(local.Tensors()) == 0 {
		t.Fatalf("%d tensors, want %d", len(remote.Tensors()), len(local.Tensors()))
	}
	for i, want := range local.Tensors() {
		got := remote.Tensors()[i]
		same := got.Key == want.Key && got.Shard == want.Shard
		if !same || !bytes.Equal(tensorBytes(t, got), tensorBytes(t, want)) {
			t.Fatalf("%s of %s is not %s of %s", got.Key, got.Shard, want.Key, want.Shard)
		}
	}
}

// tensorBytes reads a tensor.
func tensorBytes(t *testing.T, s *adapter.Stored) []byte {
	t.Helper()
	size, err := safetensors.Size(s.DType, s.Shape)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if n, err := s.File.ReadAt(t.Context(), p, s.Offset); n != len(p) {
		t.Fatalf("%s: %v", s.Key, err)
	}
	return p
}
