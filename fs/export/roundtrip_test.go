package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// uneven is a checkpoint whose sizes are not multiples of blocks or pages.
var uneven = synth.Options{
	Experts: 5, Hidden: 200, ExpertIntermediate: 100, MTP: 1, Shards: 3, ScalesApart: true,
}

// openLayout opens a checkpoint in one layout.
func openLayout(t *testing.T, source string, o adapter.Options) *fs.FS {
	t.Helper()
	return openViews(t, source, fs.View{Plan: &adapter.Plan{Options: o}})
}

// exportLayout exports one layout of a checkpoint to a new directory.
func exportLayout(t *testing.T, source string, o adapter.Options) (dir string, m *Manifest) {
	t.Helper()
	dir = t.TempDir()
	m, err := Write(context.Background(), openLayout(t, source, o), dir, Options{chunk: testChunk})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// tensorSums returns the tensors of a manifest without their places.
func tensorSums(m *Manifest) map[string]TensorRecord {
	all := map[string]TensorRecord{}
	for _, f := range m.Files {
		for _, t := range f.Tensors {
			t.Begin, t.End = 0, 0
			all[t.Name] = t
		}
	}
	return all
}

func TestRoundTripThroughNativeGivesTheSameTensors(t *testing.T) {
	for _, o := range []synth.Options{uneven, {Experts: 4, MTP: 1}} {
		source := writeSource(t, o)
		for _, d := range []safetensors.DType{safetensors.BF16, safetensors.F16, safetensors.F32} {
			_, want := exportLayout(t, source, adapter.Options{Layout: "hf", DType: d})
			native, _ := exportLayout(t, source, adapter.Options{Layout: "native", DType: d})
			_, got := exportLayout(t, native, adapter.Options{Layout: "hf", DType: d})
			if d := cmp.Diff(tensorSums(want), tensorSums(got)); d != "" {
				t.Errorf("hf of the source and of its native export (-source +export):\n%s", d)
			}
		}
	}
}

func TestQuantizingTwiceChangesNothing(t *testing.T) {
	source := writeSource(t, uneven)
	hf, _ := exportLayout(t, source, adapter.Options{Layout: "hf"})
	first, want := exportLayout(t, hf, adapter.Options{Layout: "hf-fp8"})
	back, _ := exportLayout(t, first, adapter.Options{Layout: "hf"})
	_, got := exportLayout(t, back, adapter.Options{Layout: "hf-fp8"})
	if d := cmp.Diff(tensorSums(want), tensorSums(got)); d != "" {
		t.Errorf("quantizing what was quantized differs (-once +twice):\n%s", d)
	}
}

func TestAnExportHasTheBytesOfTheTree(t *testing.T) {
	source := writeSource(t, uneven)
	dir, m := exportLayout(t, source, adapter.Options{Layout: "native"})
	f := openLayout(t, source, adapter.Options{Layout: "native"})
	found, err := VerifyTree(context.Background(), f, dir, VerifyOptions{})
	if err != nil || len(found.Differences) != 0 || found.Files != len(m.Files) ||
		found.Tensors == 0 {
		t.Errorf("%+v, %v", found, err)
	}
	other := openLayout(t, source, adapter.Options{Layout: "hf"})
	found, err = VerifyTree(context.Background(), other, dir, VerifyOptions{})
	if err != nil || len(found.Differences) == 0 {
		t.Errorf("an export of native was taken for hf: %+v, %v", found, err)
	}
}

func TestTheManifestRecordsTheView(t *testing.T) {
	source := writeSource(t, uneven)
	o := adapter.Options{
		Layout: "native", DType: safetensors.F32, EP: adapter.EP{Rank: 1, Size: 3}, MTP: "drop",
	}
	_, m := exportLayout(t, source, o)
	c, err := adapter.Open(t.Context(), source, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := m.Views[0].View(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.New(c, []fs.View{v}, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := Write(context.Background(), f, t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, again); d != "" {
		t.Error(d)
	}
}

func TestExportOfASourceThatIsTruncatedMidway(t *testing.T) {
	source := writeSource(t, uneven)
	_, want := exportLayout(t, source, adapter.Options{Layout: "hf"})
	shards, err := filepath.Glob(filepath.Join(source, "*.safetensors"))
	if err != nil || len(shards) != 3 {
		t.Fatal(shards, err)
	}
	whole, err := os.ReadFile(shards[2])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cut := false
	hf := adapter.Options{Layout: "hf"}
	_, err = Write(context.Background(), openLayout(t, source, hf), dir, Options{
		Jobs: 1, chunk: testChunk,
		Progress: func(e Event) {
			if e.Kind == Finished && filepath.Ext(e.File) == ".safetensors" && !cut {
				cut = true
				if err := os.Truncate(shards[2], int64(len(whole)/2)); err != nil {
					t.Error(err)
				}
			}
		},
	})
	if !errors.Is(err, adapter.ErrChanged) {
		t.Fatalf("error %v, want one that says the source has changed", err)
	}
	finished := contents(t, dir)
	for _, f := range want.Files {
		if data, ok := finished[f.Name]; ok && int64(len(data)) != f.Size {
			t.Errorf("%s is not whole", f.Name)
		}
	}
	if err := os.WriteFile(shards[2], whole, 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := Write(context.Background(), openLayout(t, source, hf), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
