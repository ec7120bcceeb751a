package adapter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// FuzzPlanOfFormats mutates the configuration and the only shard of a small checkpoint of each
// format. Opening and planning must end in an error, or in views that can be read whole.
func FuzzPlanOfFormats(f *testing.F) {
	for _, s := range soundFormats() {
		dir := f.TempDir()
		c := &synth.Checkpoint{Single: true, Tensors: s.tensors}
		if err := c.Write(dir); err != nil {
			f.Fatal(err)
		}
		shard, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`{"quantization_config": `+s.config+`}`), shard)
	}
	f.Fuzz(func(t *testing.T, config, shard []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{configName: config, "model.safetensors": shard} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Open(t.Context(), dir, OpenOptions{})
		if err != nil {
			return
		}
		defer c.Close()
		for _, layout := range Layouts(c) {
			p, err := NewPlan(c, Options{Layout: layout})
			if err != nil {
				continue
			}
			for _, x := range p.Tensors {
				readWhole(t, x)
			}
		}
	})
}

// readWhole reads a tensor, or both its ends if it is large.
func readWhole(t *testing.T, x Tensor) {
	t.Helper()
	n := min(x.Node.Size(), 1<<16)
	for _, off := range []int64{0, x.Node.Size() - n} {
		if err := x.Node.ReadAt(nil, make([]byte, n), off); err != nil {
			t.Errorf("%s: %d bytes at %d: %v", x.Name, n, off, err)
		}
	}
}
