package adapter_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/testdata/hostile"
	"github.com/dequantfs/dequantfs/testdata/inmemory"
)

// FuzzPlan mutates whole tiny checkpoints: opening and planning must end in an error or in
// views whose every tensor can be read at both ends.
func FuzzPlan(f *testing.F) {
	for _, s := range hostile.All() {
		if s.Big {
			continue
		}
		dir := filepath.Join(inmemory.Dir(f), "source")
		if err := s.Write(dir); err != nil {
			f.Fatal(err)
		}
		f.Add(content(dir, "config.json"), content(dir, index), content(dir, shard1),
			content(dir, shard2), content(dir, "model.safetensors"))
		// The process of a fuzzer ends without cleaning up.
		if err := os.RemoveAll(dir); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, config, indexed, first, second, single []byte) {
		dir := inmemory.Dir(t)
		for name, data := range map[string][]byte{
			"config.json": config, index: indexed, shard1: first, shard2: second, "model.safetensors": single,
		} {
			if len(data) > 0 {
				write(t, dir, name, data)
			}
		}
		c, err := adapter.Open(context.Background(), dir, adapter.OpenOptions{})
		if err != nil {
			return
		}
		defer c.Close()
		for _, layout := range adapter.Layouts(c) {
			p, err := adapter.NewPlan(c, adapter.Options{Layout: layout})
			if err != nil {
				continue
			}
			for _, v := range p.Tensors {
				readEnds(t, v)
			}
		}
	})
}

// content is a regular file's bytes, or nothing where a fuzzer needs none: missing,
// special and large files.
func content(dir, name string) []byte {
	const most = 1 << 16
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return nil
	}
	data, _ := os.ReadFile(path) // nothing is a seed too
	return data
}

// readEnds reads the first and the last bytes of a tensor.
func readEnds(t *testing.T, v adapter.Tensor) {
	t.Helper()
	n := min(v.Node.Size(), 16)
	for _, off := range []int64{0, v.Node.Size() - n} {
		if err := v.Node.ReadAt(nil, make([]byte, n), off); err != nil {
			t.Errorf("%s: %d bytes at %d: %v", v.Name, n, off, err)
		}
	}
}
