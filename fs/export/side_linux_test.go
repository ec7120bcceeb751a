package export

import (
	"context"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// filesUnder lists the files of a tree except those in hidden directories.
func filesUnder(t *testing.T, tree iofs.FS) (names []string) {
	t.Helper()
	err := iofs.WalkDir(tree, ".", func(name string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSubfoldersAreTheSameInAMountAndAnExport verifies both, and then damages the export.
func TestSubfoldersAreTheSameInAMountAndAnExport(t *testing.T) {
	source := writeSource(t, synth.Options{})
	restore(t, source, nested)
	f := openViews(t, source, layout("", "hf", 0))
	root := mounted(t, f)
	exported := filepath.Join(t.TempDir(), "export")
	m, err := Write(context.Background(), f, exported, Options{})
	if err != nil {
		t.Fatal(err)
	}

	want := filesUnder(t, f)
	for name := range nested {
		if !slices.Contains(want, name) {
			t.Errorf("%s is not in the tree", name)
		}
	}
	_, last := m.order()
	if len(last) != 2 || last[0].Name != configName || last[1].Name != indexName {
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
		if diff := cmp.Diff(want, filesUnder(t, os.DirFS(dir))); diff != "" {
			t.Errorf("%s: %s", dir, diff)
		}
		for name, data := range nested {
			path := filepath.Join(dir, name)
			if got, err := os.ReadFile(path); err != nil || string(got) != data {
				t.Errorf("%s: %.40q, %v", path, got, err)
			}
		}
		v, err := VerifyTree(context.Background(), f, dir, VerifyOptions{})
		if err != nil || len(v.Differences) != 0 || len(v.Extra) != 0 || v.Files != len(want) {
			t.Errorf("%s: %+v, %v", dir, v, err)
		}
	}

	write(t, filepath.Join(exported, "encoding", "empty.py"), "x")
	write(t, filepath.Join(exported, "1_Pooling", "more.json"), "")
	v, err := Verify(context.Background(), exported, VerifyOptions{})
	if err != nil || len(v.Differences) != 1 || v.Differences[0].File != "encoding/empty.py" ||
		!slices.Equal(v.Extra, []string{"1_Pooling/more.json"}) {
		t.Errorf("%+v, %v", v, err)
	}
	again := openViews(t, exported, layout("", "hf", 0))
	got := slices.DeleteFunc(filesUnder(t, again), func(name string) bool {
		return name == "1_Pooling/more.json"
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the export as a source: %s", diff)
	}
}
