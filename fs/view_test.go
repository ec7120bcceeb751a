package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

var dtypes = map[string]safetensors.DType{"BF16": safetensors.BF16, "F16": safetensors.F16,
	"F32": safetensors.F32}

func TestTheTreeIsAnIOFS(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{ // tiny, as it is read byte by byte
		Layers: 2, Hidden: 16, ExpertIntermediate: 8, DenseIntermediate: 16, Heads: 1, QRank: 8, KVRank: 8,
		Nope: 8, Rope: 8, VHead: 8, Vocab: 16, Shards: 2, Side: map[string][]byte{"tokenizer.json": []byte("{}\n")}})
	f := openViews(t, dir, Options{}, layout("native", "native", 0), layout("hf", "hf", 0))
	err := fstest.TestFS(f, "native/config.json", "native/model.safetensors.index.json",
		"native/tokenizer.json",
		"hf/config.json", "hf/tokenizer.json", "hf/model-00001-of-000002.safetensors")
	if err != nil {
		t.Fatal(err)
	}
}

func TestTensorsEqualTheGoldens(t *testing.T) {
	dir := writeGolden(t)
	for name, d := range dtypes {
		t.Run(name, func(t *testing.T) {
			f := openViews(t, dir, Options{}, layout("", "native", d))
			wantSums(t, cutTensors(t, readTree(t, f, "model.safetensors")), golden(t, name))
		})
	}
}

// wantSums compares tensors with their SHA-256.
func wantSums(t *testing.T, got map[string][]byte, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d tensors, want %d", len(got), len(want))
	}
	for name, data := range got {
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want[name] {
			t.Errorf("%s differs", name)
		}
	}
}

// awkward are shapes that are no multiples of anything.
var awkward = []synth.Options{
	{Layers: 2, Vocab: 96, DenseIntermediate: 130, Heads: 2, QRank: 40, KVRank: 24, Nope: 16, Rope: 8, VHead: 24, Experts: 12, Hidden: 200, ExpertIntermediate: 100, MTP: 1, Shards: 3, ScalesApart: true},
	{Layers: 2, Vocab: 96, DenseIntermediate: 130, Heads: 2, QRank: 40, KVRank: 24, Nope: 16, Rope: 8, VHead: 24, Experts: 5, Hidden: 130, ExpertIntermediate: 33, Scale: "BF16", Prefix: "language_model.", PaddedGrid: 1},
	{Layers: 2, Vocab: 96, DenseIntermediate: 130, Heads: 2, QRank: 40, KVRank: 24, Nope: 16, Rope: 8, VHead: 24, Experts: 3, Hidden: 96, ExpertIntermediate: 257, Scale: "F8_E8M0", Prefix: synth.NoPrefix, Dense: -1},
	{Layers: 2, Vocab: 96, DenseIntermediate: 130, Heads: 2, QRank: 40, KVRank: 24, Nope: 16, Rope: 8, VHead: 24, Experts: 4, Hidden: 64, ExpertIntermediate: 48, PlainExperts: true, Single: true},
}

func TestTensorsEqualTheOracle(t *testing.T) {
	for i, o := range awkward {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c, dir := writeSynth(t, o)
			f := openViews(t, dir, Options{}, layout("native", "native", safetensors.BF16),
				layout("hf", "hf", safetensors.F32))
			wantTensors(t, f, "native", c.Native("BF16", 0, 1))
			wantTensors(t, f, "hf", c.HF("F32"))
		})
	}
}

func wantTensors(t *testing.T, f *FS, dir string, want []synth.Tensor) {
	t.Helper()
	got := map[string][]byte{}
	for _, name := range shardsOf(t, f, dir) {
		for key, data := range cutTensors(t, readTree(t, f, name)) {
			got[key] = data
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d tensors, want %d", dir, len(got), len(want))
	}
	for _, w := range want {
		if !bytes.Equal(got[w.Name], w.Data) {
			t.Errorf("%s: %s differs", dir, w.Name)
		}
	}
}

func TestShardsAreAlignedAndOrdered(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("", "native", 0))
	for _, name := range shardsOf(t, f, ".") {
		data := readTree(t, f, name)
		h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if h.DataOffset%4096 != 0 || h.Metadata["format"] != "pt" {
			t.Errorf("%s: data at %d, metadata %v", name, h.DataOffset, h.Metadata)
		}
		ordered := slices.IsSortedFunc(h.Tensors, func(x, y safetensors.Tensor) int {
			if x.DType.Bits() != y.DType.Bits() {
				return y.DType.Bits() - x.DType.Bits()
			}
			return strings.Compare(x.Name, y.Name)
		})
		if !ordered {
			t.Errorf("%s is not in order", name)
		}
	}
}

func TestTheIndexNamesEveryTensorsFile(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("", "native", 0))
	var index struct {
		Metadata struct {
			TotalSize int64 `json:"total_size"`
		}
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(readTree(t, f, indexName), &index); err != nil {
		t.Fatal(err)
	}
	var total int64
	seen := 0
	for _, name := range shardsOf(t, f, ".") {
		for key, data := range cutTensors(t, readTree(t, f, name)) {
			if index.WeightMap[key] != name {
				t.Errorf("%s stands in %s, not in %s", key, name, index.WeightMap[key])
			}
			total += int64(len(data))
			seen++
		}
	}
	if total != index.Metadata.TotalSize || seen != len(index.WeightMap) {
		t.Errorf("%d bytes in %d tensors; the index says %d in %d", total, seen,
			index.Metadata.TotalSize, len(index.WeightMap))
	}
}

func TestNamesOfShards(t *testing.T) {
	for name, test := range map[string]struct {
		options synth.Options
		layout  string
		limit   int64
		want    []string
	}{
		"the source's own":     {synth.Options{Shards: 2}, "hf", 0, []string{"model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"}},
		"one file":             {synth.Options{Single: true}, "hf", 0, []string{"model.safetensors"}},
		"one file, native":     {synth.Options{Single: true, Layers: 1}, "native", 0, []string{"model.safetensors"}},
		"one shard with index": {synth.Options{}, "hf", 0, []string{"model-00001-of-000001.safetensors"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := writeSynth(t, test.options)
			v := layout("", test.layout, 0)
			v.ShardSize = test.limit
			f := openViews(t, dir, Options{}, v)
			if got := shardsOf(t, f, "."); test.want != nil && !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestNoneOfSeveralShardsIsCalledModelSafetensors: transformers reads a file of that name and
// no index.
func TestNoneOfSeveralShardsIsCalledModelSafetensors(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{Shards: 2})
	index := filepath.Join(dir, "model.safetensors.index.json")
	data, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	const first = "model-00001-of-000002.safetensors"
	if err := os.Rename(filepath.Join(dir, first),
		filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, bytes.ReplaceAll(data, []byte(first),
		[]byte("model.safetensors")), 0o644); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, dir, Options{}, layout("", "hf", 0))
	want := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	if got := shardsOf(t, f, "."); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestShardSizeIsTheMostThatAFileMayHave(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	whole := openViews(t, dir, Options{}, layout("", "native", 0))
	const limit = 300 << 10
	v := layout("", "native", 0)
	v.ShardSize = limit
	f := openViews(t, dir, Options{}, v)
	names := shardsOf(t, f, ".")
	if len(names) <= len(shardsOf(t, whole, ".")) {
		t.Errorf("only %d shards", len(names))
	}
	for _, name := range names {
		data := readTree(t, f, name)
		if n := len(cutTensors(t, data)); len(data) > limit && n > 1 {
			t.Errorf("%s: %d bytes in %d tensors", name, len(data), n)
		}
	}
}

func TestWhatCannotBeLaidOutFailsAtOnce(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{})
	f := openViews(t, dir, Options{}, layout("", "native", 0))
	v := f.views[0]
	for name, views := range map[string][]View{
		"twice in one place": {v, v},
		"a bad name":         {{Dir: "../x", Plan: v.Plan}},
	} {
		if _, err := New(f.checkpoint, views, Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAbsentFilesAndDirectoriesAreErrors(t *testing.T) {
	_, dir := writeSynth(t, synth.Options{})
	f := openViews(t, dir, Options{}, layout("native", "native", 0))
	if _, err := f.Open("native/absent"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := f.Open("../x"); !errors.Is(err, iofs.ErrInvalid) {
		t.Errorf("invalid: %v", err)
	}
	if _, err := f.ReaderAt("native"); err == nil {
		t.Error("a directory can be read")
	}
}
