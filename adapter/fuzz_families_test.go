package adapter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/inmemory"
)

// fuzzedFamilies have a step of each type between them: fused, joined, turned, swapped, tied,
// scaledBy, numbered parts, rows in shards, prediction layers elsewhere, and halves.
var fuzzedFamilies = []string{"ling_v2", "kimi_linear", "inkling", "kimi_k25", "llama",
	"gemma4", "diffusion_gemma", "qwen4_exp", "mimo_v25", "step3p7", "hunyuan_image3", "qwen3_vl_moe"}

// FuzzPlanOfFamilies mutates the configuration and the only shard of a small checkpoint of each
// family whose views have steps. Opening and planning must end in an error, or in views that can be
// read.
func FuzzPlanOfFamilies(f *testing.F) {
	for _, name := range fuzzedFamilies {
		dir := f.TempDir()
		c := synthetic(f, listed[name].config, listed[name].tensors)
		c.Single = true
		if err := c.Write(dir); err != nil {
			f.Fatal(err)
		}
		shard, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(listed[name].config), shard)
	}
	f.Fuzz(func(t *testing.T, config, shard []byte) { planAndRead(t, config, shard) })
}

// planAndRead reads what every layout of a checkpoint of one shard shows.
func planAndRead(t *testing.T, config, shard []byte) {
	t.Helper()
	dir := inmemory.Dir(t)
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
}
