package fs

import (
	"context"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// nested are side files in subfolders of a source.
var nested = map[string]string{
	"modules.json":                             `[{"path": "1_Pooling"}]`,
	"1_Pooling/config.json":                    `{"pooling_mode_mean_tokens": true}`,
	"additional_chat_templates/tool_use.jinja": "{{ messages }}",
	"encoding/tests/a/in.json":                 strings.Repeat("0123456789", 2000),
	"encoding/empty.py":                        "",
}

// writeNested writes a small checkpoint with side files in subfolders.
func writeNested(t *testing.T, o synth.Options) string {
	t.Helper()
	_, dir := writeSynth(t, o)
	for name, data := range nested {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// filesUnder lists the files of a tree, slash-separated.
func filesUnder(t *testing.T, tree iofs.FS, dir string) (names []string) {
	t.Helper()
	err := iofs.WalkDir(tree, dir, func(name string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(name, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestSubfoldersAreInATreeOfAnyView(t *testing.T) {
	dir := writeNested(t, synth.Options{ // tiny, as it is read byte by byte
		Layers: 2, Hidden: 16, ExpertIntermediate: 8, DenseIntermediate: 16, Heads: 1, QRank: 8, KVRank: 8,
		Nope: 8, Rope: 8, VHead: 8, Vocab: 16, Shards: 2})
	f := openViews(t, dir, Options{}, layout("native", "native", 0), layout("hf/rank-0-of-2", "hf", 0))
	for _, view := range []string{"native", "hf/rank-0-of-2"} {
		for name, data := range nested {
			if got := readTree(t, f, view+"/"+name); string(got) != data {
				t.Errorf("%s/%s: %.40q", view, name, got)
			}
		}
	}
	if err := fstest.TestFS(f, "native/encoding/tests/a/in.json", "hf/rank-0-of-2/1_Pooling/config.json"); err != nil {
		t.Error(err)
	}
}

// TestSubfoldersAreTheSameThroughAMountAnExportAndVerify shows one source in all ways, and
// then damages what was written.
func TestSubfoldersAreTheSameThroughAMountAnExportAndVerify(t *testing.T) {
	source := writeNested(t, synth.Options{})
	private := filepath.Join(source, "1_Pooling")
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, source, Options{}, layout("", "hf", 0))
	_, root := mountFS(t, f, MountOptions{})
	exported := filepath.Join(t.TempDir(), "export")
	m, err := f.Export(context.Background(), exported, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}

	want := filesUnder(t, f, ".")
	for name := range maps.Keys(nested) {
		if !slices.Contains(want, name) {
			t.Errorf("%s is not in the tree", name)
		}
	}
	_, last := m.order()
	if len(last) != 2 || last[0].Name != "config.json" || last[1].Name != "model.safetensors.index.json" {
		t.Errorf("an export ends with %+v", last)
	}
	var listed []string
	for _, r := range m.Files {
		listed = append(listed, r.Name)
	}
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("manifest: %s", diff)
	}
	for _, dir := range []string{root, exported} {
		got := slices.DeleteFunc(filesUnder(t, os.DirFS(dir), "."), func(name string) bool { return strings.HasPrefix(name, ".") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", dir, diff)
		}
		for name, data := range nested {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != data {
				t.Errorf("%s: %.40q, %v", filepath.Join(dir, name), got, err)
			}
		}
		v, err := f.Verify(context.Background(), dir, VerifyOptions{})
		if err != nil || len(v.Differences) != 0 || len(v.Extra) != 0 || v.Files != len(want) {
			t.Errorf("%s: %+v, %v", dir, v, err)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"1_Pooling": os.ModeDir | 0o555, "1_Pooling/config.json": 0o400, "encoding/tests": os.ModeDir | 0o555, "encoding/tests/a/in.json": 0o444,
	} {
		if s, err := os.Stat(filepath.Join(root, name)); err != nil || s.Mode() != mode {
			t.Errorf("%s: %v, %v", name, s.Mode(), err)
		}
	}

	if err := os.WriteFile(filepath.Join(exported, "encoding", "empty.py"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(exported, "1_Pooling", "more.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(context.Background(), exported, VerifyOptions{})
	if err != nil || len(v.Differences) != 1 || v.Differences[0].File != "encoding/empty.py" || !slices.Equal(v.Extra, []string{"1_Pooling/more.json"}) {
		t.Errorf("%+v, %v", v, err)
	}
	again := openViews(t, exported, Options{}, layout("", "hf", 0))
	got := slices.DeleteFunc(filesUnder(t, again, "."), func(name string) bool { return name == "1_Pooling/more.json" })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the export as a source: %s", diff)
	}
}
