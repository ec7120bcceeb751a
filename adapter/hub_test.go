package adapter_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// cached lays a source out as huggingface_hub does, in the cache of an environment that
// has nothing else, and gives the model's folder.
func cached(t *testing.T) (model string) {
	t.Helper()
	for _, v := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
		"XDG_CACHE_HOME"} {
		t.Setenv(v, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	return cacheIn(t, filepath.Join(home, ".cache", "huggingface", "hub"))
}

// cacheIn lays a source out in a cache.
func cacheIn(t *testing.T, cache string) (model string) {
	t.Helper()
	model = filepath.Join(cache, "models--org--name")
	write(t, filepath.Join(model, "refs"), "main", []byte(commit))
	write(t, filepath.Join(model, "refs", "refs", "pr"), "1", []byte(commit+"\n"))
	plain := source(t, t.TempDir())
	entries, err := os.ReadDir(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(plain, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(model, "blobs"), "blob-of-"+e.Name(), data)
		link(t, "../../blobs/blob-of-"+e.Name(),
			filepath.Join(model, "snapshots", commit, e.Name()))
	}
	return model
}

func TestOpenFindsRepositoriesInTheCache(t *testing.T) {
	model := cached(t)
	for _, id := range []string{
		"org/name", "org/name@main", "org/name@" + commit, "org/name@refs/pr/1",
		filepath.Join(model, "snapshots", commit),
		filepath.Join(model, "snapshots", commit) + "/",
	} {
		c := open(t, id)
		if len(c.Tensors()) != 3 || c.Path != id {
			t.Errorf("%s: %d tensors of %s", id, len(c.Tensors()), c.Path)
		}
	}
	if c := open(t, filepath.Join(model, "snapshots", commit, shard1)); len(c.Tensors()) != 2 ||
		c.Config.Missing() {
		t.Errorf("single shard of a snapshot: %v", keys(c))
	}
}

func TestOpenFindsASnapshotThroughALinkToIt(t *testing.T) {
	model := cached(t)
	path := filepath.Join(t.TempDir(), "model")
	link(t, filepath.Join(model, "snapshots", commit), path)
	if c := open(t, path); len(c.Tensors()) != 3 {
		t.Errorf("%v", keys(c))
	}
}

func TestTheEnvironmentSaysWhereTheCacheIs(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ variable, value, cache string }{
		{"HF_HUB_CACHE", "$HERE/1", "1"},
		{"HUGGINGFACE_HUB_CACHE", "${HERE}/2", "2"},
		{"HF_HOME", "~/3", "3/hub"},
		{"XDG_CACHE_HOME", dir + "/4", "4/huggingface/hub"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			cached(t)
			t.Setenv("HOME", dir)
			t.Setenv("HERE", dir)
			refuses(t, "org/name", "not in the Hugging Face cache "+dir)
			t.Setenv(c.variable, c.value)
			refuses(t, "org/name", "not in the Hugging Face cache "+filepath.Join(dir, c.cache))
			cacheIn(t, filepath.Join(dir, c.cache))
			open(t, "org/name")
		})
	}
}

func TestAFolderComesBeforeARepositoryOfItsName(t *testing.T) {
	cached(t)
	t.Chdir(t.TempDir())
	source(t, "org/name")
	write(t, "org/name", "here", nil)
	for _, s := range open(t, "org/name").SideFiles() {
		if s.Name == "here" {
			return
		}
	}
	t.Error("the cache was taken")
}

func TestOpenSaysHowToDownload(t *testing.T) {
	model := cached(t)
	snapshot := filepath.Join(model, "snapshots", commit)
	refuses(t, "org/other", "org/other: no such folder, and not in the Hugging Face cache",
		"run hf download org/other")
	refuses(t, "org/other@v1.0", "run hf download org/other --revision v1.0")
	refuses(t, "org/name@v2", `revision "v2" is not in the Hugging Face cache`,
		"run hf download org/name --revision v2")
	refuses(t, "org/name@../../x", `revision "../../x" is not in`)
	refuses(t, "org/na--me", "no such file")

	finish := "the download is not finished: run hf download org/name --revision " + commit
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"missing blob", func() { remove(t, filepath.Join(model, "blobs"), "blob-of-"+shard2) }, shard2 + ": its link leads to ../../blobs/blob-of-" + shard2 + ", which does not exist"},
		{"missing shard", func() { remove(t, snapshot, shard2) }, "1 of 2 shards is missing, about 152 bytes: " + shard2},
		{"missing shards", func() { remove(t, snapshot, shard1) }, "2 of 2 shards are missing: " + shard1 + ", " + shard2},
		{"missing index", func() { remove(t, snapshot, index) }, "no " + index},
		{"missing config", func() { remove(t, snapshot, "config.json") }, "config.json: missing"},
	} {
		c.do()
		refuses(t, "org/name", c.want, finish)
	}
}

func TestOpenNamesADownloadThatIsNotFinished(t *testing.T) {
	model := cached(t)
	write(t, filepath.Join(model, "blobs"), "0123.incomplete", nil)
	write(t, filepath.Join(model, "refs"), "dev", []byte("fedcba"))
	refuses(t, "org/name@dev",
		"its download is not finished: run hf download org/name --revision dev")

	dir := source(t, t.TempDir())
	write(t, filepath.Join(dir, ".cache", "huggingface", "download"), "x.incomplete", nil)
	open(t, dir)
	remove(t, dir, shard2)
	refuses(t, dir,
		"1 of 2 shards is missing, about 152 bytes: "+shard2+": a download into this folder is "+
			"not finished")
}

func TestReferencesLeadNowhereElse(t *testing.T) {
	model := cached(t)
	for name, content := range map[string]string{
		"up":       "../..",
		"deep":     "a/b",
		"empty":    "",
		"absolute": "/etc",
		"long":     string(make([]byte, 1000)),
	} {
		write(t, filepath.Join(model, "refs"), name, []byte(content))
		refuses(t, "org/name@"+name, "is not in the Hugging Face cache")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(commit), 0o644); err != nil {
		t.Fatal(err)
	}
	link(t, secret, filepath.Join(model, "refs", "linked"))
	refuses(t, "org/name@linked", `revision "linked" is not in`)
	link(t, t.TempDir(), filepath.Join(model, "snapshots", "linked"))
	refuses(t, "org/name@linked", `revision "linked" is not in`)
}

func TestLinksStayInTheSourcesRoot(t *testing.T) {
	model := cached(t)
	snapshot := filepath.Join(model, "snapshots", commit)
	outside := t.TempDir()
	write(t, outside, "x", shard(t, head))
	plain := t.TempDir()
	for _, c := range []struct {
		name, dir, target string
		want              string // of the error; empty: it is opened
	}{
		{"outside", source(t, filepath.Join(plain, "1")), filepath.Join(outside, "x"), "outside of"},
		{"beside the folder", source(t, filepath.Join(plain, "2")), "../1/" + shard2, "outside of"},
		{"inside", source(t, filepath.Join(plain, "3")), "real", ""},
		{"inside, absolute", source(t, filepath.Join(plain, "4")), filepath.Join(plain, "4", "real"), ""},
		{"inside, by way of a folder", source(t, filepath.Join(plain, "5")), "sub/../real", ""},
		{"to itself", source(t, filepath.Join(plain, "6")), shard2, "too many"},
		{"a folder", source(t, filepath.Join(plain, "7")), "sub", "a directory where"},
		{"out of the model's folder", snapshot, filepath.Join(outside, "x"), "outside of"},
		{"to another model", snapshot, "../../../models--a--b/x", "which does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, filepath.Join(c.dir, "sub"), "x", nil)
			write(t, c.dir, "real", shard(t, head))
			remove(t, c.dir, shard2)
			link(t, c.target, filepath.Join(c.dir, shard2))
			if c.want != "" {
				refuses(t, c.dir, shard2+": ", c.want)
			} else if got := open(t, c.dir); len(got.Tensors()) != 3 {
				t.Errorf("%v", keys(got))
			}
		})
	}
	c, err := adapter.Open(t.Context(), filepath.Join(plain, "1"),
		adapter.OpenOptions{FollowLinks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Tensors()) != 3 {
		t.Errorf("%v", keys(c))
	}
}

func TestConfigAndIndexAreNotReadThroughLinksToTheOutside(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "x", []byte(`{"weight_map":{}}`))
	for _, name := range []string{"config.json", index} {
		dir := source(t, t.TempDir())
		remove(t, dir, name)
		link(t, filepath.Join(outside, "x"), filepath.Join(dir, name))
		refuses(t, dir, name+": its link leads to "+filepath.Join(outside, "x")+", outside of "+dir)
	}
}

func TestAFolderThatOnlyLooksLikeASnapshotIsItsOwnRoot(t *testing.T) {
	base := t.TempDir()
	dir := source(t, filepath.Join(base, "mine", "snapshots", "x"))
	write(t, filepath.Join(base, "mine", "blobs"), "b", shard(t, head))
	remove(t, dir, shard2)
	link(t, "../../blobs/b", filepath.Join(dir, shard2))
	refuses(t, dir, "outside of "+dir)
}

func TestSideFilesAreTheRegularFilesThatSayNothingOfWeights(t *testing.T) {
	dir := source(t, t.TempDir())
	outside := t.TempDir()
	write(t, outside, "secret", []byte("x"))
	for _, name := range []string{
		"tokenizer.json", "generation_config.json", "modeling.py", "README.md", "binary", "x.bin.txt",
		".gitattributes", "pytorch_model.bin", "other.safetensors", "consolidated.00.pth", "consolidated.safetensors",
		"pytorch_model.bin.index.json", "model.fp16.index.json", "x.incomplete",
	} {
		write(t, dir, name, []byte(name))
	}
	write(t, dir, "hf_quant_config.json", []byte("{}"))
	write(t, dir, "quantize_config.json", []byte("{}"))
	write(t, filepath.Join(dir, "original"), "params.json", nil)
	link(t, "tokenizer.json", filepath.Join(dir, "linked.json"))
	link(t, "original", filepath.Join(dir, "linked-folder"))
	link(t, filepath.Join(outside, "secret"), filepath.Join(dir, "outside.json"))
	link(t, "nowhere", filepath.Join(dir, "dangling.json"))
	if err := os.Chmod(filepath.Join(dir, "binary"), 0o640); err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, s := range open(t, dir).SideFiles() {
		got = append(got, s.Name)
		want, err := os.ReadFile(filepath.Join(dir, s.Name))
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, s.Size)
		if _, err := s.File.ReadAt(t.Context(), data, 0); err != nil ||
			string(data) != string(want) {
			t.Errorf("%s: %q, %v", s.Name, data, err)
		}
		if s.Name == "binary" && s.Mode != 0o640 {
			t.Errorf("%s: mode %o", s.Name, s.Mode)
		}
	}
	log := warnings(t, dir)
	for _, name := range []string{"outside.json", "dangling.json"} {
		if strings.Count(log, name) != 1 {
			t.Errorf("%s should be told of once: %s", name, log)
		}
	}
	want := []string{"README.md", "binary", "generation_config.json", "linked.json", "modeling.py",
		"tokenizer.json", "x.bin.txt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// warnings gives what is logged while a source is opened.
func warnings(t *testing.T, dir string) string {
	t.Helper()
	var log strings.Builder
	c, err := adapter.Open(t.Context(), dir,
		adapter.OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return log.String()
}

func TestSideFilesBeyondAThousandAreLeftOut(t *testing.T) {
	dir := source(t, t.TempDir())
	for i := range 1010 {
		write(t, dir, fmt.Sprintf("side-%04d.txt", i), nil)
	}
	if n := len(open(t, dir).SideFiles()); n != 1000 {
		t.Errorf("%d side files", n)
	}
	if log := warnings(t, dir); strings.Count(log, "\n") != 1 ||
		!strings.Contains(log, "too many") {
		t.Errorf("log: %s", log)
	}
}
