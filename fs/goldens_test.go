package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	iofs "io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// shown is what a tensor of a view is.
type shown struct {
	DType  string
	Shape  []int64
	SHA256 string
}

// formatGolden is a checkpoint of testdata/golden/formats with what its views must show: for each
// view its tensors by key.
type formatGolden struct {
	dir   string
	views map[string]map[string]shown
}

// goldenViews are the views that an expected.json describes, by their folders.
var goldenViews = map[string]View{
	"hf-bf16":     layout("hf-bf16", "hf", safetensors.BF16),
	"hf-f16":      layout("hf-f16", "hf", safetensors.F16),
	"hf-f32":      layout("hf-f32", "hf", safetensors.F32),
	"native-bf16": layout("native-bf16", "native", safetensors.BF16),
}

// formatGoldens reads all expected.json.
func formatGoldens(t testing.TB) map[string]formatGolden {
	t.Helper()
	paths, err := filepath.Glob("../testdata/golden/formats/*/expected.json")
	if err != nil || len(paths) != 54 {
		t.Fatalf("%d goldens, want 54; error %v", len(paths), err)
	}
	all := map[string]formatGolden{}
	for _, path := range paths {
		dir := filepath.Dir(path)
		all[filepath.Base(dir)] = readFormatGolden(t, dir)
	}
	return all
}

func readFormatGolden(t testing.TB, dir string) formatGolden {
	t.Helper()
	var expected struct {
		HF, Native map[string]struct {
			Shape                         []int64
			DType, SHA256, BF16, F16, F32 string
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(data, &expected)
	}
	if err != nil || len(expected.HF) == 0 {
		t.Fatalf("%s: no goldens: %v", dir, err)
	}
	g := formatGolden{dir, map[string]map[string]shown{"hf-bf16": {}, "hf-f16": {}, "hf-f32": {}}}
	for key, x := range expected.HF {
		for dtype, sum := range map[string]string{"BF16": x.BF16, "F16": x.F16, "F32": x.F32} {
			s := shown{dtype, x.Shape, sum}
			if x.SHA256 != "" { // the tensor passes as it is
				s = shown{x.DType, x.Shape, x.SHA256}
			}
			g.views["hf-"+strings.ToLower(dtype)][key] = s
		}
	}
	if expected.Native != nil {
		g.views["native-bf16"] = map[string]shown{}
	}
	for key, x := range expected.Native {
		g.views["native-bf16"][key] = shown{x.DType, x.Shape, x.SHA256}
	}
	return g
}

// open opens the golden with all its views.
func (g formatGolden) open(t testing.TB, o Options) *FS {
	t.Helper()
	var views []View
	for _, name := range slices.Sorted(maps.Keys(g.views)) {
		views = append(views, goldenViews[name])
	}
	return openViews(t, g.dir, o, views...)
}

// tensorsShown describes the tensors of a safetensors file.
func tensorsShown(data []byte) (map[string]shown, error) {
	h, err := safetensors.ReadHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	all := map[string]shown{}
	for _, x := range h.Tensors {
		sum := sha256.Sum256(data[h.DataOffset+x.Begin : h.DataOffset+x.End])
		all[x.Name] = shown{x.DType.String(), slices.Clone(x.Shape), hex.EncodeToString(sum[:])}
	}
	return all, nil
}

// wantShown compares the tensors of a view with the golden.
func wantShown(t *testing.T, view string, got, want map[string]shown) {
	t.Helper()
	for key, w := range want {
		switch g, ok := got[key]; {
		case !ok:
			t.Errorf("%s: %s: missing", view, key)
		case g.DType != w.DType || !slices.Equal(g.Shape, w.Shape):
			t.Errorf("%s: %s: %s %v, want %s %v", view, key, g.DType, g.Shape, w.DType, w.Shape)
		case g.SHA256 != w.SHA256:
			t.Errorf("%s: %s %s %v: other bytes than the library's", view, key, g.DType, g.Shape)
		}
	}
	for key, g := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: %s %s %v: not expected", view, key, g.DType, g.Shape)
		}
	}
}

func TestEveryFormatEqualsItsLibrary(t *testing.T) {
	for name, g := range formatGoldens(t) {
		t.Run(name, func(t *testing.T) {
			f := g.open(t, Options{})
			for view, want := range g.views {
				got := map[string]shown{}
				index := map[string]string{}
				for _, file := range shardsOf(t, f, view) {
					data, err := iofs.ReadFile(f, file)
					if err != nil {
						t.Fatal(err)
					}
					tensors, err := tensorsShown(data)
					if err != nil {
						t.Fatal(err)
					}
					for key := range tensors {
						index[key] = path.Base(file)
					}
					maps.Copy(got, tensors)
				}
				wantShown(t, view, got, want)
				wantIndex(t, f, view, index)
			}
		})
	}
}

// wantIndex checks that the index of a view, if it has one, names exactly what is there.
func wantIndex(t *testing.T, f *FS, view string, want map[string]string) {
	t.Helper()
	data, err := iofs.ReadFile(f, path.Join(view, indexName))
	if err != nil {
		if files := shardsOf(t, f, view); len(files) != 1 {
			t.Errorf("%s: %d shards without an index: %v", view, len(files), err)
		}
		return
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, index.WeightMap); diff != "" {
		t.Errorf("%s: index: %s", view, diff)
	}
}

// ofQuantization are fields that speak of nothing but the quantization.
var ofQuantization = []string{"quantization_config", "compression_config", "quantization",
	"expert_dtype"}

// A view is a model that was never quantized, so none of its files describes a quantization.
// Everything else in its configuration is as in the source.
func TestNoViewOfAFormatSpeaksOfTheQuantization(t *testing.T) {
	for name, g := range formatGoldens(t) {
		t.Run(name, func(t *testing.T) {
			f := g.open(t, Options{})
			err := iofs.WalkDir(f, ".", func(name string, d iofs.DirEntry, err error) error {
				base := path.Base(name)
				if err != nil || path.Ext(base) != ".json" || base == "expected.json" {
					return err
				}
				if base == "hf_quant_config.json" || base == "quantize_config.json" {
					t.Errorf("%s is shown", name)
				}
				for _, field := range fieldsOf(t, readTree(t, f, name), ofQuantization) {
					t.Errorf("%s: %s is shown", name, field)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, config := range []string{"config.json", "params.json"} {
				wantScrubbed(t, f, g.dir, config)
			}
		})
	}
}

// wantScrubbed checks that a configuration differs from the source's by nothing but the
// quantization and the dtype.
func wantScrubbed(t *testing.T, f *FS, dir, name string) {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	fields := append([]string{"dtype", "torch_dtype"}, ofQuantization...)
	want := withoutFields(parsed(t, source), fields)
	got := withoutFields(parsed(t, readTree(t, f, "hf-bf16/"+name)), fields)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func parsed(t *testing.T, data []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// fieldsOf lists which of some fields a JSON document has, at any depth.
func fieldsOf(t *testing.T, data []byte, fields []string) (found []string) {
	t.Helper()
	visitFields(parsed(t, data), func(o map[string]any) {
		for _, field := range fields {
			if _, ok := o[field]; ok {
				found = append(found, field)
			}
		}
	})
	return found
}

// withoutFields removes fields of a JSON value at any depth.
func withoutFields(value any, fields []string) any {
	visitFields(value, func(o map[string]any) {
		for _, field := range fields {
			delete(o, field)
		}
	})
	return value
}

// visitFields calls visit with each object of a JSON value.
func visitFields(value any, visit func(map[string]any)) {
	switch v := value.(type) {
	case map[string]any:
		visit(v)
		for _, x := range v {
			visitFields(x, visit)
		}
	case []any:
		for _, x := range v {
			visitFields(x, visit)
		}
	}
}
