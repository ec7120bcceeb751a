package adapter_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// write writes a file into a folder, and makes the folder if it is missing.
func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// shard returns a .safetensors file. Each tensor has four bytes, which hold its number.
func shard(t *testing.T, keys ...string) []byte {
	t.Helper()
	tensors := make([]safetensors.Tensor, len(keys))
	for i, k := range keys {
		tensors[i] = safetensors.Tensor{Name: k, DType: safetensors.U8, Shape: []int64{2, 2}}
	}
	_, b, err := safetensors.NewHeader(tensors, nil, 8)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		b = append(b, bytes.Repeat([]byte{byte(i)}, 4)...)
	}
	return b
}

const (
	shard1 = "model-00001-of-00002.safetensors"
	shard2 = "model-00002-of-00002.safetensors"
	index  = "model.safetensors.index.json"
	weight = "layers.0.weight"
	bias   = "layers.0.bias"
	head   = "head.weight"
)

// source writes a small valid source of two shards with an index.
func source(t *testing.T, dir string) string {
	t.Helper()
	write(t, dir, "config.json", []byte(`{"model_type":"deepseek_v3"}`))
	write(t, dir, shard1, shard(t, weight, bias))
	write(t, dir, shard2, shard(t, head))
	writeIndex(t, dir, map[string]string{weight: shard1, bias: shard1, head: shard2})
	return dir
}

func writeIndex(t *testing.T, dir string, keys map[string]string) {
	t.Helper()
	b, err := (&safetensors.Index{WeightMap: keys}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, index, b)
}

// open opens a source until the test ends.
func open(t *testing.T, path string) *adapter.Checkpoint {
	t.Helper()
	c, err := adapter.Open(t.Context(), path, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// refuses opens a source that must be refused, and checks the error.
func refuses(t *testing.T, path string, want ...string) {
	t.Helper()
	c, err := adapter.Open(t.Context(), path, adapter.OpenOptions{})
	if err == nil {
		_ = c.Close()
		t.Fatalf("no error, want one with %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want it to have %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

// keys lists a checkpoint's tensors with their shards.
func keys(c *adapter.Checkpoint) []string {
	var all []string
	for _, s := range c.Tensors() {
		all = append(all, s.Shard+" "+s.Key)
	}
	return all
}

// bytesOf reads a tensor.
func bytesOf(t *testing.T, c *adapter.Checkpoint, key string) []byte {
	t.Helper()
	s, ok := c.Tensor(key)
	if !ok {
		t.Fatalf("no tensor %s", key)
	}
	b := make([]byte, 4)
	if _, err := s.File.ReadAt(t.Context(), b, s.Offset); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

func TestOpenReadsAFolderWithAnIndex(t *testing.T) {
	c := open(t, source(t, t.TempDir()))
	want := []string{shard1 + " " + weight, shard1 + " " + bias, shard2 + " " + head}
	if diff := cmp.Diff(want, keys(c)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{shard1, shard2}, c.Shards()); diff != "" {
		t.Error(diff)
	}
	if c.Config.ModelType != "deepseek_v3" {
		t.Errorf("model_type %q", c.Config.ModelType)
	}
	if got := bytesOf(t, c, bias); !bytes.Equal(got, []byte{1, 1, 1, 1}) {
		t.Errorf("bytes of %s: %v", bias, got)
	}
	if _, ok := c.Tensor("absent"); ok {
		t.Error("found an absent tensor")
	}
}

func TestOpenReadsAFolderWithoutAnIndexInNaturalOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "config.json", []byte(`{}`))
	for i, name := range []string{"part10", "part9", "part1", "consolidated.00"} {
		write(t, dir, name+".safetensors", shard(t, fmt.Sprint("key", i)))
	}
	want := []string{"part1.safetensors key2", "part9.safetensors key1", "part10.safetensors key0"}
	if diff := cmp.Diff(want, keys(open(t, dir))); diff != "" {
		t.Error(diff)
	}
}

func TestOpenReadsASingleFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.safetensors", shard(t, "a", "b"))
	write(t, dir, "y.safetensors", shard(t, "a"))
	c := open(t, filepath.Join(dir, "x.safetensors"))
	if !c.Config.Missing() || len(c.Tensors()) != 2 || len(c.SideFiles()) != 0 {
		t.Errorf("config %v, %d tensors, side files %v", c.Config, len(c.Tensors()), c.SideFiles())
	}
	write(t, dir, "config.json", []byte(`{"model_type":"x"}`))
	c = open(t, filepath.Join(dir, "x.safetensors"))
	if c.Config.Missing() || c.Config.ModelType != "x" {
		t.Errorf("config %v", c.Config)
	}
}

func TestOpenReadsASingleFileThroughALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, "x.safetensors", shard(t, "a"))
	link(t, filepath.Join(elsewhere, "x.safetensors"), filepath.Join(dir, "link.safetensors"))
	if c := open(t, filepath.Join(dir, "link.safetensors")); len(c.Tensors()) != 1 {
		t.Errorf("%d tensors", len(c.Tensors()))
	}
}

func TestOpenRefusesBrokenSources(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string)
		want []string
	}{
		{"no config.json", func(t *testing.T, dir string) { remove(t, dir, "config.json") },
			[]string{"config.json: missing"}},
		{"config.json is no JSON", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte("{"))
		},
			[]string{"config.json: not a JSON object"}},
		{"config.json is a list", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte("[]"))
		},
			[]string{"config.json: not a JSON object"}},
		{"config.json is null", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte("null"))
		},
			[]string{"config.json: not a JSON object"}},
		{"config.json is empty", func(t *testing.T, dir string) {
			write(t, dir, "config.json", nil)
		},
			[]string{"config.json: empty: remove it and download it again"}},
		{"config.json is not UTF-8", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte("{\"\xff\":1}"))
		},
			[]string{"config.json: not a JSON object: not UTF-8"}},
		{"missing shard", func(t *testing.T, dir string) { remove(t, dir, shard2) },
			[]string{": 1 of 2 shards is missing, about 152 bytes: " + shard2}},
		{"missing shards", func(t *testing.T, dir string) { remove(t, dir, shard1, shard2) },
			[]string{": 2 of 2 shards are missing: " + shard1 + ", " + shard2}},
		{"missing shard without an index", func(t *testing.T, dir string) {
			remove(t, dir, index, shard1)
		},
			[]string{": 1 of 2 shards is missing, about 84 bytes: " + shard1}},
		{"no shards", func(t *testing.T, dir string) { remove(t, dir, index, shard1, shard2) },
			[]string{"no " + index + " and no *.safetensors"}},
		{"dangling link", func(t *testing.T, dir string) {
			remove(t, dir, shard2)
			link(t, "nowhere", filepath.Join(dir, shard2))
		}, []string{shard2 + ": its link leads to nowhere, which does not exist"}},
		{"truncated data", func(t *testing.T, dir string) { truncate(t, dir, shard2, 1) },
			[]string{shard2 + `: tensor "head.weight": ends at byte 4`, "truncated"}},
		{"truncated header", func(t *testing.T, dir string) {
			write(t, dir, shard2, shard(t, head)[:20])
		},
			[]string{shard2 + ": header of", "truncated"}},
		{"key over two shards", func(t *testing.T, dir string) {
			remove(t, dir, index)
			write(t, dir, shard2, shard(t, head, bias))
		},
			[]string{shard2 + `: tensor "layers.0.bias": it is also in ` + shard1 +
				", and no index says which one counts"}},
		{"key over two shards that the index does not list", func(t *testing.T, dir string) {
			write(t, dir, shard2, shard(t, head, bias))
			writeIndex(t, dir, map[string]string{weight: shard1, head: shard2})
		},
			[]string{shard2 + `: tensor "layers.0.bias": it is also in ` + shard1 +
				", and no index says which one counts"}},
		{"index names the wrong shard", func(t *testing.T, dir string) {
			writeIndex(t, dir, map[string]string{weight: shard1, bias: shard2, head: shard2})
		}, []string{shard1 + `: tensor "layers.0.bias"`, index + " lists it in " + shard2}},
		{"index names another folder", func(t *testing.T, dir string) {
			writeIndex(t, dir, map[string]string{weight: "../x.safetensors"})
		}, []string{index + `: tensor "layers.0.weight" is listed in "../x.safetensors"`}},
		{"index is no JSON", func(t *testing.T, dir string) { write(t, dir, index, []byte("[]")) },
			[]string{index + ": bad index"}},
		{"index has a key twice", func(t *testing.T, dir string) {
			write(t, dir, index, []byte(`{"weight_map":{"a":"`+shard1+`","a":"`+shard1+`"}}`))
		}, []string{index, `tensor "a" appears twice`}},
		{"index without shards", func(t *testing.T, dir string) {
			write(t, dir, index, []byte(`{"weight_map":{}}`))
		}, []string{index + ": it lists no shards"}},
		{"control character in a key", func(t *testing.T, dir string) {
			remove(t, dir, index)
			write(t, dir, shard2, shard(t, "a\x1b[2Jb"))
		}, []string{shard2 + `: tensor "a\x1b[2Jb": a control character`}},
		{"shard is a folder", func(t *testing.T, dir string) {
			remove(t, dir, shard2)
			write(t, filepath.Join(dir, shard2), "x", nil)
		}, []string{shard2 + ": a directory where a regular file should be"}},
		{"config.json is a folder", func(t *testing.T, dir string) {
			remove(t, dir, "config.json")
			write(t, filepath.Join(dir, "config.json"), "x", nil)
		}, []string{"config.json: a directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := source(t, t.TempDir())
			c.do(t, dir)
			refuses(t, dir, append(c.want, dir)...)
		})
	}
}

func TestOpenRefusesWhatIsNoSource(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "notes.txt", []byte("x"))
	refuses(t, filepath.Join(dir, "absent", "and", "more"), "no such file")
	refuses(t, filepath.Join(dir, "notes.txt"), "neither a folder nor a .safetensors file")
	refuses(t, os.DevNull, "a device where a regular file should be")
	refuses(t, "", "no such file")
}

func TestOpenTellsOfTensorsThatTheIndexLacks(t *testing.T) {
	dir := source(t, t.TempDir())
	writeIndex(t, dir, map[string]string{head: shard2, weight: shard1})
	var log bytes.Buffer
	c, err := adapter.Open(t.Context(), dir,
		adapter.OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Tensors()) != 3 || !strings.Contains(log.String(), bias) {
		t.Errorf("%d tensors, log %q", len(c.Tensors()), log.String())
	}
}

func TestCloseTwiceIsHarmlessAndEndsReading(t *testing.T) {
	c, err := adapter.Open(t.Context(), source(t, t.TempDir()), adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := c.Tensor(head)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.File.ReadAt(t.Context(), make([]byte, 1), 0); err == nil ||
		!strings.Contains(err.Error(), os.ErrClosed.Error()) {
		t.Errorf("got %v", err)
	}
}

// remove removes files of a folder.
func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// truncate cuts n bytes off the end of a file.
func truncate(t *testing.T, dir, name string, n int64) {
	t.Helper()
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-n)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// link makes a symlink.
func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
