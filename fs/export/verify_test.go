package export

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// damages are changes to an export, and the differences that verify finds.
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
	}, []string{"config.json: is a directory, not a regular file"}},
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
			if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir)
			found, err := Verify(context.Background(), dir, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			wantDifferences(t, found, test.want)

			// The comparison with the tree finds the same.
			found, err = tree.verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			wantDifferences(t, found, test.want)
		})
	}
}

// verify checks a directory against the tree.
func (t fakeTree) verify(dir string) (*Verification, error) {
	return VerifyTree(context.Background(), t, dir, VerifyOptions{})
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

// lies are well-formed manifests with the right checksum of every byte. They disagree with the
// headers or the index.
var lies = []struct {
	name string
	tell func(m *Manifest, files map[string]string)
	want string
}{
	{"another dtype", func(m *Manifest, _ map[string]string) {
		m.Files[3].Tensors[0].DType, m.Files[3].Tensors[0].Shape = "F16", []int64{3, 5}
	}, `hf/model-00001-of-00002.safetensors: layers.0.weight: is "layers.0.weight", ` +
		`F16 of shape [3 5], bytes 216 to 246 in the manifest, ` +
		`but "layers.0.weight", BF16 of shape [3 5]`},
	{"another shape", func(m *Manifest, _ map[string]string) {
		m.Files[3].Tensors[0].Shape = []int64{5, 3}
	}, "layers.0.weight: is "},
	{"another name", func(m *Manifest, _ map[string]string) {
		m.Files[3].Tensors[0].Name = "layers.9.weight"
	}, "layers.9.weight: is "},
	{"one tensor of two", func(m *Manifest, _ map[string]string) {
		x := m.Files[3].Tensors
		x[0].End, x[0].DType, x[0].Shape = x[2].End, "U8", []int64{x[2].End - x[0].Begin}
		m.Files[3].Tensors = x[:1]
	}, "layers.0.weight: is "},
	{"no tensors", func(m *Manifest, _ map[string]string) {
		m.Files[3].Tensors = nil
	}, "its tensors begin at byte 216, not at 266"},
	{"a header that ends elsewhere", func(m *Manifest, files map[string]string) {
		x := TensorRecord{Name: "x", DType: "U8", Shape: []int64{10}, Begin: 256, End: 266}
		m.Files[3].Tensors = []TensorRecord{x}
	}, "its tensors begin at byte 216, not at 256"},
	{"not a safetensors file", func(m *Manifest, files map[string]string) {
		files[m.Files[3].Name] = "\x02\x00\x00\x00\x00\x00\x00\x00{]"
		m.Files[3].Size, m.Files[3].Tensors = 10, nil
	}, "has the checksums of the manifest, but is not a safetensors file: bad header"},
	{"a missing shard", func(m *Manifest, files map[string]string) {
		delete(files, m.Files[4].Name)
		m.Files = slices.Delete(m.Files, 4, 5)
	}, "layers.1.bias: should be in model-00002-of-00002.safetensors by the index, " +
		"but the manifest does not have it"},
	{"an index with another tensor", func(m *Manifest, files map[string]string) {
		name := m.Files[5].Name
		files[name] = strings.Replace(files[name], `"layers.0.bias"`, `"layers.0.bia5"`, 1)
	}, "layers.0.bia5: should be in model-00001-of-00002.safetensors by the index"},
	{"not an index", func(m *Manifest, files map[string]string) {
		files[m.Files[5].Name], m.Files[5].Size = `{"weight_map":{"a":"b","a":"b"}}`, 32
	}, "has the checksum of the manifest, but is not an index: "},
}

func TestVerifyComparesTheManifestWithHeadersAndIndex(t *testing.T) {
	tree := newTinyTree(t)
	whole := tree.exported(t)
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			m, err := readManifestText(t, whole[inState(manifestName)])
			if err != nil {
				t.Fatal(err)
			}
			files := maps.Clone(whole)
			lie.tell(m, files)
			for i := range m.Files {
				sumFile(&m.Files[i], files[m.Files[i].Name])
			}
			text, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			files[inState(manifestName)] = string(text)
			dir := t.TempDir()
			restore(t, dir, files)
			found, err := Verify(context.Background(), dir, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			// The index is right, so it may disagree with the manifest too.
			if n := len(found.Differences); n == 0 || n > 2 ||
				!strings.Contains(found.Differences[0].String(), lie.want) {
				t.Errorf("found %v, want %q", found.Differences, lie.want)
			}
		})
	}
}

// sumFile computes the checksums of a record from the bytes at its offsets.
func sumFile(f *FileRecord, data string) {
	begin := len(data)
	for i, x := range f.Tensors {
		begin = min(begin, int(x.Begin))
		f.Tensors[i].SHA256 = sumOf(data[x.Begin:x.End])
	}
	f.SHA256 = sumOf(data[:begin])
}

func TestVerifyNamesExtraFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := newFakeTree(t).export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "hf", "other.txt"), "x")
	write(t, filepath.Join(dir, ".git", "config"), "x")
	found, err := Verify(context.Background(), dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := cmp.Diff([]string{"hf/other.txt"}, found.Extra)
	if d != "" || len(found.Differences) != 0 {
		t.Errorf("%s%v", d, found.Differences)
	}
}

func TestVerifyRefusesADirectoryThatIsNotAnExport(t *testing.T) {
	unfinished := t.TempDir()
	begin(t, unfinished, func(*Manifest) {})
	for dir, want := range map[string]error{t.TempDir(): ErrNotExport, unfinished: ErrUnfinished} {
		_, err := Verify(context.Background(), dir, VerifyOptions{})
		if !errors.Is(err, want) || !mentions(err, dir) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}

func TestVerifyStopsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	if _, err := newFakeTree(t).export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, dir, VerifyOptions{}); err == nil {
		t.Error("it did not stop")
	}
}

func TestVerifyReportsEveryPieceOnce(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	found, err := Verify(context.Background(), dir, VerifyOptions{
		Progress: func(file string, bytes int64) { sizes[file] += bytes },
	})
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for name, f := range tree {
		total += f.Size()
		if sizes[name] != f.Size() {
			t.Errorf("%s: %d of %d bytes were reported", name, sizes[name], f.Size())
		}
	}
	if found.Bytes != total {
		t.Errorf("%d of %d bytes were counted", found.Bytes, total)
	}
}
