package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// uneven is a checkpoint whose sizes are no multiples of anything.
var uneven = synth.Options{Experts: 5, Hidden: 200, ExpertIntermediate: 100, MTP: 1, Shards: 3, ScalesApart: true}

// writeSource writes a checkpoint to disk.
func writeSource(t *testing.T, o synth.Options) string {
	t.Helper()
	_, dir := writeSynth(t, o)
	return dir
}

// openLayout opens a checkpoint in one layout.
func openLayout(t *testing.T, source string, o adapter.Options) *FS {
	t.Helper()
	return openViews(t, source, Options{}, View{Plan: &adapter.Plan{Options: o}})
}

// exportLayout exports one layout of a checkpoint to a new directory.
func exportLayout(t *testing.T, source string, o adapter.Options) (dir string, m *Manifest) {
	t.Helper()
	dir = t.TempDir()
	m, err := openLayout(t, source, o).Export(context.Background(), dir, ExportOptions{chunk: testChunk})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// tensorSums are what a manifest says of its tensors, wherever they lie.
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
				t.Errorf("hf of the source and hf of its native export differ (-source +export):\n%s", d)
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

func TestExportIsWhatTheTreeShows(t *testing.T) {
	source := writeSource(t, uneven)
	dir, m := exportLayout(t, source, adapter.Options{Layout: "native"})
	f := openLayout(t, source, adapter.Options{Layout: "native"})
	found, err := f.Verify(context.Background(), dir, VerifyOptions{})
	if err != nil || len(found.Differences) != 0 || found.Files != len(m.Files) || found.Tensors == 0 {
		t.Errorf("%+v, %v", found, err)
	}
	other := openLayout(t, source, adapter.Options{Layout: "hf"})
	found, err = other.Verify(context.Background(), dir, VerifyOptions{})
	if err != nil || len(found.Differences) == 0 {
		t.Errorf("an export of native was taken for hf: %+v, %v", found, err)
	}
}

func TestManifestTellsWhichViewItIs(t *testing.T) {
	source := writeSource(t, uneven)
	o := adapter.Options{Layout: "native", DType: safetensors.F32, EP: adapter.EP{Rank: 1, Size: 3}, MTP: "drop"}
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
	f, err := New(c, []View{v}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := f.Export(context.Background(), t.TempDir(), ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, again); d != "" {
		t.Error(d)
	}
}

func TestFingerprintTellsCheckpointsApart(t *testing.T) {
	fingerprint := func(o synth.Options) string {
		t.Helper()
		c, err := adapter.Open(t.Context(), writeSource(t, o), adapter.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f, err := Fingerprint(c)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	same, resharded, otherValues := uneven, uneven, uneven
	resharded.Shards, resharded.ScalesApart = 1, false
	otherValues.Seed++
	want := fingerprint(uneven)
	if fingerprint(same) != want || fingerprint(resharded) != want {
		t.Error("the fingerprint depends on where the tensors lie")
	}
	if fingerprint(otherValues) == want {
		t.Error("a checkpoint of the same shapes has the same fingerprint")
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
	_, err = openLayout(t, source, adapter.Options{Layout: "hf"}).Export(context.Background(), dir, ExportOptions{
		Jobs: 1, chunk: testChunk,
		Progress: func(e ExportEvent) {
			if e.Kind == ExportFinished && filepath.Ext(e.File) == ".safetensors" && !cut {
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
	got, err := openLayout(t, source, adapter.Options{Layout: "hf"}).Export(context.Background(), dir, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
