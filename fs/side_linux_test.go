package fs

import (
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
	f := openViews(t, dir, Options{}, layout("native", "native", 0),
		layout("hf/rank-0-of-2", "hf", 0))
	for _, view := range []string{"native", "hf/rank-0-of-2"} {
		for name, data := range nested {
			if got := readTree(t, f, view+"/"+name); string(got) != data {
				t.Errorf("%s/%s: %.40q", view, name, got)
			}
		}
	}
	if err := fstest.TestFS(f, "native/encoding/tests/a/in.json",
		"hf/rank-0-of-2/1_Pooling/config.json"); err != nil {
		t.Error(err)
	}
}

func TestSubfoldersAreTheSameThroughAMount(t *testing.T) {
	source := writeNested(t, synth.Options{})
	private := filepath.Join(source, "1_Pooling")
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	f := openViews(t, source, Options{}, layout("", "hf", 0))
	_, root := mountFS(t, f, MountOptions{})
	want := filesUnder(t, f, ".")
	for name := range maps.Keys(nested) {
		if !slices.Contains(want, name) {
			t.Errorf("%s is not in the tree", name)
		}
	}
	if diff := cmp.Diff(want, filesUnder(t, os.DirFS(root), ".")); diff != "" {
		t.Errorf("%s: %s", root, diff)
	}
	for name, data := range nested {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != data {
			t.Errorf("%s: %.40q, %v", filepath.Join(root, name), got, err)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"1_Pooling": os.ModeDir | 0o555, "1_Pooling/config.json": 0o400, "encoding/tests": os.ModeDir | 0o555, "encoding/tests/a/in.json": 0o444,
	} {
		if s, err := os.Stat(filepath.Join(root, name)); err != nil || s.Mode() != mode {
			t.Errorf("%s: %v, %v", name, s.Mode(), err)
		}
	}
}
