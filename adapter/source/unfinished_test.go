package source

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnfinishedNamesWhatADownloadIsWriting has the folders of hf download: with --local-dir, and
// in the cache.
func TestUnfinishedNamesWhatADownloadIsWriting(t *testing.T) {
	base := t.TempDir()
	t.Setenv("HF_HUB_CACHE", base)
	make := func(name string) string {
		path := filepath.Join(base, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("0123"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make("local/config.json")
	make("models--org--name/refs/main")
	make("models--org--name/snapshots/0123/config.json")
	local := filepath.Join(base, "local")
	link := filepath.Join(base, "link")
	if err := os.Symlink(filepath.Join(base, "models--org--name", "snapshots", "0123"),
		link); err != nil {
		t.Skip(err)
	}
	names := []string{local, "org/name", link}
	for _, name := range append(names, filepath.Join(base, "nosuch"), "org/other") {
		if got := Unfinished(name); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	shard := make("models--org--name/blobs/ab.incomplete")
	for name, want := range map[string]string{
		local: "", "org/name": shard, "org/name@0123": shard, link: shard,
	} {
		if got := Unfinished(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, file := range []string{"sub/x.incomplete", "a.incomplete"} {
		want := make("local/.cache/huggingface/download/" + file)
		if got := Unfinished(local); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
