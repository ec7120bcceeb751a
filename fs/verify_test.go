package fs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// damages are what can happen to an export, and what verify says about it.
var damages = []struct {
	name   string
	damage func(t *testing.T, dir string)
	want   []string // beginnings of lines
}{
	{"nothing", func(*testing.T, string) {}, nil},
	{"a tensor's last byte", func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "model-00002-of-00003.safetensors"), -1)
	}, []string{"model-00002-of-00003.safetensors: b: "}},
	{"a tensor's first byte", func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "hf", "model-00002-of-00003.safetensors"), 4096)
	}, []string{"hf/model-00002-of-00003.safetensors: a: "}},
	{"two tensors", func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "model-00003-of-00003.safetensors"), 4096+3*testChunk-1)
		flip(t, filepath.Join(dir, "model-00003-of-00003.safetensors"), 4096+3*testChunk)
	}, []string{"model-00003-of-00003.safetensors: a: ", "model-00003-of-00003.safetensors: b: "}},
	{"the header", func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "model-00001-of-00003.safetensors"), 4000)
	}, []string{"model-00001-of-00003.safetensors: "}},
	{"a side file", func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "side-1.bin"), 0)
	}, []string{"side-1.bin: "}},
	{"a file too short", func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, "side-4096.bin"), 4095); err != nil {
			t.Fatal(err)
		}
	}, []string{"side-4096.bin: has 4095 bytes, not 4096"}},
	{"a file too long", func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, "side-0.bin"), 1); err != nil {
			t.Fatal(err)
		}
	}, []string{"side-0.bin: has 1 bytes, not 0"}},
	{"a missing file", func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
			t.Fatal(err)
		}
	}, []string{"config.json: is missing"}},
	{"a directory instead", func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "config.json"), 0o777); err != nil {
			t.Fatal(err)
		}
	}, []string{"config.json: is not a regular file"}},
}

// flip changes one byte; a negative offset counts from the end.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if off < 0 {
		off += int64(len(data))
	}
	data[off] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFindsDamageByTensor(t *testing.T) {
	tree := newFakeTree(t)
	for _, test := range damages {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := tree.export(context.Background(), dir, ExportOptions{}); err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir)
			found, err := Verify(context.Background(), dir, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			wantDifferences(t, found, test.want)

			// Against the tree itself the same is found.
			found, err = tree.verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			wantDifferences(t, found, test.want)
		})
	}
}

// verify is FS.Verify for a tree that is none.
func (t fakeTree) verify(dir string) (*Verification, error) {
	return verifyTree(context.Background(), t.manifest(), t.open, dir, VerifyOptions{})
}

func wantDifferences(t *testing.T, found *Verification, want []string) {
	t.Helper()
	if len(found.Differences) != len(want) {
		t.Fatalf("found %v, want %q", found.Differences, want)
	}
	for i, w := range want {
		if !strings.HasPrefix(found.Differences[i].String(), w) {
			t.Errorf("found %q, want %q…", found.Differences[i], w)
		}
	}
	if len(want) == 0 && (found.Files == 0 || found.Tensors == 0 || found.Bytes == 0) {
		t.Errorf("nothing was checked: %+v", found)
	}
}

func TestVerifyNamesWhatDoesNotBelong(t *testing.T) {
	dir := t.TempDir()
	if _, err := newFakeTree(t).export(context.Background(), dir, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "hf", "other.txt"), "x")
	write(t, filepath.Join(dir, ".git", "config"), "x")
	found, err := Verify(context.Background(), dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"hf/other.txt"}, found.Extra); d != "" || len(found.Differences) != 0 {
		t.Errorf("%s%v", d, found.Differences)
	}
}

func TestVerifyOfWhatIsNoExport(t *testing.T) {
	unfinished := t.TempDir()
	begin(t, unfinished, func(*Manifest) {})
	escaping := t.TempDir()
	write(t, filepath.Join(escaping, stateDir, manifestName), `{"version":1,"files":[{"name":"../x","size":1}]}`)
	for dir, want := range map[string]string{
		t.TempDir(): "is not an export",
		unfinished:  "unfinished export",
		escaping:    `"../x"`,
	} {
		if _, err := Verify(context.Background(), dir, VerifyOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestVerifyStopsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	if _, err := newFakeTree(t).export(context.Background(), dir, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, dir, VerifyOptions{}); err == nil {
		t.Error("it did not stop")
	}
}
