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

// goldenSource is a checkpoint of testdata/golden with what its views must show: for each view its
// tensors by key. A view is named after its layout and dtype: "hf-bf16".
type goldenSource struct {
	dir   string
	views map[string]map[string]shown
}

// goldenTensor is what an expected.json says of a key. A tensor that is the same in every dtype has
// DType and SHA256; another has its sum in each dtype.
type goldenTensor struct {
	Shape                         []int64
	DType, SHA256, BF16, F16, F32 string
}

// goldenDTypes are the dtypes of views, as their names end.
var goldenDTypes = map[string]safetensors.DType{"bf16": safetensors.BF16, "f16": safetensors.F16,
	"f32": safetensors.F32}

// goldenLayouts is what an expected.json says: for each layout its tensors by key.
type goldenLayouts map[string]map[string]goldenTensor

// in gives the tensor as a view in a dtype must show it.
func (x goldenTensor) in(dtype string) shown {
	if x.SHA256 != "" {
		return shown{x.DType, x.Shape, x.SHA256}
	}
	sums := map[string]string{"bf16": x.BF16, "f16": x.F16, "f32": x.F32}
	return shown{strings.ToUpper(dtype), x.Shape, sums[dtype]}
}

// expect adds the view of a layout in a dtype.
func (g goldenSource) expect(layout, dtype string, tensors map[string]goldenTensor) {
	view := map[string]shown{}
	for key, x := range tensors {
		view[key] = x.in(dtype)
	}
	g.views[layout+"-"+dtype] = view
}

// goldensIn reads the goldens in the folders that match a pattern below testdata/golden. A golden
// is named after its path, without what is before the wildcards.
func goldensIn(t testing.TB, pattern string, number int,
	expect func(g goldenSource, name string, expected goldenLayouts),
) map[string]goldenSource {
	t.Helper()
	root, _, _ := strings.Cut(pattern, "*")
	paths, err := filepath.Glob("../testdata/golden/" + pattern + "/expected.json")
	if err != nil || len(paths) != number {
		t.Fatalf("%d goldens, want %d; error %v", len(paths), number, err)
	}
	all := map[string]goldenSource{}
	for _, path := range paths {
		g := goldenSource{filepath.Dir(path), map[string]map[string]shown{}}
		name, err := filepath.Rel("../testdata/golden/"+root, g.dir)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.ToSlash(name)
		all[name] = g
		expect(g, name, expectedOf(t, g.dir))
	}
	return all
}

// expectedOf reads an expected.json.
func expectedOf(t testing.TB, dir string) (expected goldenLayouts) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(data, &expected)
	}
	if err != nil || len(expected) == 0 {
		t.Fatalf("%s: no goldens: %v", dir, err)
	}
	return expected
}

// formatGoldens reads the goldens of the quantized formats. Layout native is given in BF16 alone.
func formatGoldens(t testing.TB) map[string]goldenSource {
	t.Helper()
	return goldensIn(t, "formats/*", 54, func(g goldenSource, name string, expected goldenLayouts) {
		if len(expected["hf"]) == 0 {
			t.Fatalf("%s: no layout hf", name)
		}
		for dtype := range goldenDTypes {
			g.expect("hf", dtype, expected["hf"])
		}
		if native, ok := expected["native"]; ok {
			g.expect("native", "bf16", native)
		}
	})
}

// open opens the golden with all its views.
func (g goldenSource) open(t testing.TB, o Options) *FS {
	t.Helper()
	var views []View
	for _, name := range slices.Sorted(maps.Keys(g.views)) {
		of, dtype, _ := strings.Cut(name, "-")
		views = append(views, layout(name, of, goldenDTypes[dtype]))
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
	wantGoldens(t, formatGoldens(t))
}

// wantGoldens compares each view of each golden, file by file, with what it must show.
func wantGoldens(t *testing.T, all map[string]goldenSource) {
	for name, g := range all {
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
