package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// names lists a directory of a tree.
func names(t *testing.T, f *FS) (all []string) {
	t.Helper()
	list, err := f.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// Mistral's own layout keeps its names: the readers of that layout look for them.
func TestMistralsOwnLayoutKeepsItsNames(t *testing.T) {
	const golden = "../testdata/golden/formats/mistral_native"
	f := openViews(t, golden, Options{}, layout("", "hf", safetensors.BF16))
	if got, want := names(t, f), []string{"consolidated.safetensors", "expected.json",
		"params.json", "tekken.json"}; !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	if text := string(readTree(t, f, "params.json")); strings.Contains(text, "quant") ||
		!strings.Contains(text, `"norm_eps": 1e-05`) {
		t.Errorf("params.json is %s", text)
	}
	tekken, err := os.ReadFile(filepath.Join(golden, "tekken.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readTree(t, f, "tekken.json"), tekken) {
		t.Error("tekken.json has other bytes")
	}

	small := layout("", "hf", safetensors.BF16)
	small.ShardSize = 12 << 10
	f = openViews(t, golden, Options{}, small)
	shards := shardsOf(t, f, ".")
	if len(shards) < 2 || !strings.HasPrefix(shards[0], "consolidated-00001-of-0000") {
		t.Errorf("small shards are %v", shards)
	}
	index, err := safetensors.ParseIndex(readTree(t, f, "consolidated.safetensors.index.json"))
	if err != nil || len(index.WeightMap) != 12 {
		t.Errorf("index %+v, %v", index, err)
	}
}

func TestSeveralShardsOfMistralKeepTheirNames(t *testing.T) {
	s := synth.DeepSeek(synth.Options{Shards: 2, Layers: 2, Experts: 2})
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "model.safetensors.index.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for i := range 2 {
		to := strings.Replace(s.ShardName(i), "model", "consolidated", 1)
		if err := os.Rename(filepath.Join(dir, s.ShardName(i)),
			filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
		want = append(want, to)
	}
	params := []byte(`{"dim":1}`)
	if err := os.WriteFile(filepath.Join(dir, "params.json"), params, 0o644); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, dir, Options{}, layout("", "hf", safetensors.BF16))
	if got := shardsOf(t, f, "."); !slices.Equal(got, want) {
		t.Errorf("shards %v, want %v", got, want)
	}
	all := names(t, f)
	if !slices.Contains(all, "consolidated.safetensors.index.json") ||
		slices.Contains(all, "config.json") ||
		slices.Contains(all, indexName) {
		t.Errorf("files %v", all)
	}
	if !bytes.Equal(readTree(t, f, "params.json"), params) {
		t.Error("params.json does not pass as it is")
	}
}
