package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// fakeTree is a Tree of files in memory, by name.
type fakeTree map[string]*fakeFile

// fakeFile is bytes, of which those from failAt on cannot be read if failAt is positive.
type fakeFile struct {
	*bytes.Reader
	failAt int64
}

var errFake = errors.New("the source went away")

func (f *fakeFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if f.failAt > 0 && off+int64(len(p)) > f.failAt {
		return 0, errFake
	}
	return f.ReadAt(p, off)
}

// Open opens a file or directory.
func (t fakeTree) Open(name string) (iofs.File, error) {
	files := fstest.MapFS{}
	for name := range t {
		files[name] = &fstest.MapFile{Data: t.bytes(name), Mode: 0o444}
	}
	return files.Open(name)
}

// ReaderAt opens a file.
func (t fakeTree) ReaderAt(name string) (fs.ReaderAtContext, error) {
	if f := t[name]; f != nil {
		return f, nil
	}
	return nil, iofs.ErrNotExist
}

// Views are one view, in the folder of config.json.
func (t fakeTree) Views() []fs.View {
	v := fs.View{Plan: &adapter.Plan{Options: adapter.Options{Layout: "native"}}}
	if t["config.json"] == nil && t["hf/config.json"] != nil {
		v.Dir = "hf"
	}
	return []fs.View{v}
}

// Fingerprint is the same for all fake trees.
func (t fakeTree) Fingerprint() (string, error) { return sumOf("fake"), nil }

func (t fakeTree) manifest(tb testing.TB) *Manifest {
	tb.Helper()
	m, err := manifestOf(t)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// sumOf is the SHA-256 of a text as a manifest has it.
func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// testChunk is small, so that files have many pieces.
const testChunk = 64 << 10

func (t fakeTree) export(ctx context.Context, dir string, o Options) (*Manifest, error) {
	o.chunk = testChunk
	return Write(ctx, t, dir, o)
}

// newFakeTree makes files whose sizes lie around the borders of pieces and of direct writes.
func newFakeTree(t *testing.T) fakeTree {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	tree := fakeTree{}
	add := func(name string, data []byte) { tree[name] = &fakeFile{Reader: bytes.NewReader(data)} }
	for _, n := range []int{0, 1, 4095, 4096, 4097, testChunk - 1, testChunk, testChunk + 1, 5*testChunk + 12345} {
		add(fmt.Sprintf("side-%d.bin", n), randomBytes(rng, n))
	}
	for i, n := range []int64{1, 2000, 3 * testChunk} {
		name := fmt.Sprintf("model-%05d-of-00003.safetensors", i+1)
		add(name, fakeShard(t, rng, n))
		add("hf/"+name, fakeShard(t, rng, 2*n))
	}
	add("config.json", []byte("{}"))
	add("hf/config.json", []byte("{ }"))
	add(indexName, []byte(`{"metadata":{"total_size":1},"weight_map":{"a":"model-00001-of-00003.safetensors","b":"model-00002-of-00003.safetensors","empty":"model-00003-of-00003.safetensors"}}`))
	return tree
}

// newTinyTree is a tree of a few small files of every kind.
func newTinyTree(t testing.TB) fakeTree {
	t.Helper()
	tree := fakeTree{}
	add := func(name string, data []byte) { tree[name] = &fakeFile{Reader: bytes.NewReader(data)} }
	rng := rand.New(rand.NewPCG(5, 6))
	weights := map[string]string{}
	for i, dtype := range []safetensors.DType{safetensors.BF16, safetensors.F32} {
		file := fmt.Sprintf("model-%05d-of-00002.safetensors", i+1)
		h, head, err := safetensors.NewHeader([]safetensors.Tensor{
			{Name: fmt.Sprint("layers.", i, ".weight"), DType: dtype, Shape: []int64{3, 5}},
			{Name: fmt.Sprint("layers.", i, ".empty"), DType: dtype, Shape: []int64{0}},
			{Name: fmt.Sprint("layers.", i, ".bias"), DType: safetensors.F32, Shape: []int64{5}},
		}, nil, 8)
		if err != nil {
			t.Fatal(err)
		}
		add("hf/"+file, append(head, randomBytes(rng, int(h.Tensors[len(h.Tensors)-1].End))...))
		for _, x := range h.Tensors {
			weights[x.Name] = file
		}
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 100}, "weight_map": weights})
	if err != nil {
		t.Fatal(err)
	}
	add("hf/"+indexName, index)
	add("hf/config.json", []byte(`{"model_type":"tiny"}`))
	add("hf/1_Pooling/config.json", []byte(`{}`))
	add("hf/empty.txt", nil)
	return tree
}

// restore writes files into a directory.
func restore(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(data), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// fakeShard is a safetensors file with tensors of n, 0 and 7n bytes.
func fakeShard(t *testing.T, rng *rand.Rand, n int64) []byte {
	t.Helper()
	h, head, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "a", DType: safetensors.U8, Shape: []int64{n}},
		{Name: "empty", DType: safetensors.U8, Shape: []int64{0, 3}},
		{Name: "b", DType: safetensors.U8, Shape: []int64{7, n}},
	}, nil, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, randomBytes(rng, int(h.Tensors[2].End))...)
}

// contents reads every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sums shortens contents to what a difference can be seen by.
func sums(files map[string]string) map[string]string {
	short := map[string]string{}
	for name, data := range files {
		sum := sha256.Sum256([]byte(data))
		short[name] = fmt.Sprintf("%d bytes, %x", len(data), sum[:8])
	}
	return short
}

// wantSame compares two directories.
func wantSame(t *testing.T, got, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(sums(want), sums(got)); d != "" {
		t.Fatalf("the exports differ (-want +got):\n%s", d)
	}
}

// exported is what an uninterrupted export of the tree leaves behind.
func (t fakeTree) exported(tb *testing.T) map[string]string {
	tb.Helper()
	dir := tb.TempDir()
	if _, err := t.export(context.Background(), dir, Options{}); err != nil {
		tb.Fatal(err)
	}
	return contents(tb, dir)
}

func contentsOf(t *testing.T, tree fakeTree) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, f := range tree {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(data)
	}
	return all
}

func TestExportWritesEveryFileAndAManifest(t *testing.T) {
	tree := newFakeTree(t)
	for _, jobs := range []int{0, 1, 7} {
		dir := filepath.Join(t.TempDir(), "new", "directory")
		m, err := tree.export(context.Background(), dir, Options{Jobs: jobs})
		if err != nil {
			t.Fatal(err)
		}
		got := contents(t, dir)
		manifest := got[".dequantfs/manifest.json"]
		delete(got, ".dequantfs/manifest.json")
		wantSame(t, got, contentsOf(t, tree))
		read, err := ReadManifest(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, read); d != "" {
			t.Error(d)
		}
		checkManifest(t, read, got)
		if want := tree.exported(t)[".dequantfs/manifest.json"]; manifest != want {
			t.Error("the manifest differs from run to run")
		}
	}
}

// checkManifest computes every checksum of a manifest again.
func checkManifest(t *testing.T, m *Manifest, files map[string]string) {
	t.Helper()
	tensors := 0
	for _, f := range m.Files {
		data := files[f.Name]
		before := data // of all tensors
		if len(f.Tensors) > 0 {
			before = data[:f.Tensors[0].Begin]
		}
		if f.SHA256 != sumOf(before) || f.Size != int64(len(data)) {
			t.Errorf("%s: %+v", f.Name, f)
		}
		for _, r := range f.Tensors {
			tensors++
			if r.SHA256 != sumOf(data[r.Begin:r.End]) {
				t.Errorf("%s: %+v", f.Name, r)
			}
		}
	}
	if len(m.Files) != len(files) || tensors == 0 {
		t.Errorf("%d files and %d tensors in the manifest, %d files", len(m.Files), tensors, len(files))
	}
}

func TestExportOfACompleteDirectoryDoesNothing(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	var written, skipped int
	m, err := tree.export(context.Background(), dir, Options{Progress: func(e Event) {
		switch e.Kind {
		case Written:
			written++
		case Skipped:
			skipped++
		}
	}})
	if err != nil || m == nil || written != 0 || skipped != len(tree) {
		t.Errorf("%v, %v, %d pieces written, %d files skipped", m, err, written, skipped)
	}
	wantSame(t, contents(t, dir), before)
}

func TestExportGoesOnWhereItFailed(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	want := tree.exported(t)
	broken := "model-00003-of-00003.safetensors"
	tree[broken].failAt = 10 * testChunk
	if _, err := tree.export(context.Background(), dir, Options{Jobs: 1}); !errors.Is(err, errFake) || !strings.Contains(err.Error(), broken) {
		t.Fatalf("error %v, want one that names %s", err, broken)
	}
	finished := wantOnlyWhole(t, dir, want)
	if len(finished) == 0 || finished["config.json"] {
		t.Fatalf("finished after the failure: %v", finished)
	}
	tree[broken].failAt = 0
	if _, err := tree.export(context.Background(), dir, Options{Progress: func(e Event) {
		if e.Kind == Finished && finished[e.File] {
			t.Errorf("%s was written again", e.File)
		}
	}}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, contents(t, dir), want)
}

// wantOnlyWhole checks that every file under its final name is whole, and names them.
func wantOnlyWhole(t *testing.T, dir string, want map[string]string) map[string]bool {
	t.Helper()
	finished := map[string]bool{}
	for name, data := range contents(t, dir) {
		if strings.HasPrefix(name, stateDir+"/") {
			continue
		}
		if data != want[name] {
			t.Errorf("%s is not whole", name)
		}
		finished[name] = true
	}
	return finished
}

func TestExportStopsWhenCancelled(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pieces := 0
	_, err := tree.export(ctx, dir, Options{Progress: func(e Event) {
		if e.Kind == Written {
			if pieces++; pieces == 12 {
				cancel()
			}
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	want := tree.exported(t)
	wantOnlyWhole(t, dir, want)
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, contents(t, dir), want)
}

func TestExportRefusesWhatIsNotItsOwn(t *testing.T) {
	tree := newFakeTree(t)
	tests := []struct {
		name  string
		other func(t *testing.T, dir string)
		want  string
	}{
		{"a file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "notes.txt"), "mine")
		}, "it holds notes.txt"},
		{"another source", func(t *testing.T, dir string) {
			begin(t, dir, func(m *Manifest) { m.Source = sumOf("other") })
		}, "of another source"},
		{"another view", func(t *testing.T, dir string) {
			begin(t, dir, func(m *Manifest) { m.Views[0].Layout = "hf" })
		}, "of another view"},
		{"other files", func(t *testing.T, dir string) {
			begin(t, dir, func(m *Manifest) { m.Files[0].Size++ })
		}, "of other files"},
		{"a complete other export", func(t *testing.T, dir string) {
			other := fakeTree{"a": {Reader: bytes.NewReader([]byte("a"))}}
			if _, err := other.export(context.Background(), dir, Options{}); err != nil {
				t.Fatal(err)
			}
		}, "of other files"},
		{"a damaged state", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, stateDir, exportName), "{")
		}, exportName},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.other(t, dir)
			before := contents(t, dir)
			_, err := tree.export(context.Background(), dir, Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one with %q and the directory", err, test.want)
			}
			wantSame(t, contents(t, dir), before)
		})
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
		t.Fatal(err)
	}
}

// begin leaves the state of an unfinished export that was changed.
func begin(t *testing.T, dir string, change func(*Manifest)) {
	t.Helper()
	m := newFakeTree(t).manifest(t)
	change(m)
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, stateDir, exportName), string(data))
}

func TestExportPartsAtOnceMakeTheWhole(t *testing.T) {
	tree := newFakeTree(t)
	want := tree.exported(t)
	for _, parts := range []int{2, 4, 40} {
		dir := t.TempDir()
		var wg sync.WaitGroup
		complete := make([]*Manifest, parts)
		errs := make([]error, parts)
		for i := range parts {
			wg.Go(func() {
				complete[i], errs[i] = tree.export(context.Background(), dir, Options{Part: i, Parts: parts})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if slices.Max(present(complete)) == 0 {
			t.Error("no part found the export complete")
		}
		wantSame(t, contents(t, dir), want)
	}
}

func present(all []*Manifest) []int {
	n := make([]int, len(all))
	for i, m := range all {
		if m != nil {
			n[i] = 1
		}
	}
	return n
}

func TestExportPartIsNotCompleteWithoutTheOthers(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	for i := range 3 {
		m, err := tree.export(context.Background(), dir, Options{Part: i, Parts: 3})
		if err != nil {
			t.Fatal(err)
		}
		if (m != nil) != (i == 2) {
			t.Errorf("after part %d the manifest is %v", i, m)
		}
		if _, err := os.Stat(filepath.Join(dir, configName)); (err == nil) != (i == 2) {
			t.Errorf("after part %d: config.json: %v", i, err)
		}
	}
	wantSame(t, contents(t, dir), tree.exported(t))
}

func TestExportPartsShareTheBytes(t *testing.T) {
	var files []FileRecord
	var total int64
	for i := range 163 {
		files = append(files, FileRecord{Name: fmt.Sprintf("%03d", i), Size: int64(i%7+1) * 1000})
		total += files[i].Size
	}
	for _, n := range []int{1, 2, 3, 8, 64, 163, 200} {
		seen := map[string]int{}
		for i := range n {
			var bytes int64
			for _, f := range share(files, i, n) {
				seen[f.Name]++
				bytes += f.Size
			}
			if fair := total/int64(n) + 7000; bytes > fair {
				t.Errorf("part %d of %d has %d bytes of %d", i, n, bytes, total)
			}
		}
		for _, f := range files {
			if seen[f.Name] != 1 {
				t.Errorf("%d parts: %s is in %d of them", n, f.Name, seen[f.Name])
			}
		}
	}
	if _, err := newFakeTree(t).export(context.Background(), t.TempDir(), Options{Part: 4, Parts: 4}); err == nil {
		t.Error("part 4 of 4 was taken")
	}
}

func TestExportOfOneFileByTwoIsRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("files are locked on linux only")
	}
	dir, err := openDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	first, err := createTarget(dir, "partial", 10)
	if err != nil {
		t.Fatal(err)
	}
	defer first.abandon()
	if _, err := createTarget(dir, "partial", 10); err == nil || !strings.Contains(err.Error(), "another export") {
		t.Errorf("error %v", err)
	}
}

// TestExportChild is the process that TestExportSurvivesKills kills. It is silent until it is told
// to go on after each piece, so that it is killed at a chosen moment.
func TestExportChild(t *testing.T) {
	dir := os.Getenv("DEQUANTFS_TEST_EXPORT")
	if dir == "" {
		return
	}
	_, err := newFakeTree(t).export(context.Background(), dir, Options{Progress: func(e Event) {
		line, _ := json.Marshal(e)
		fmt.Printf("event %s\n", line)
	}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("complete")
}

func TestExportSurvivesKills(t *testing.T) {
	want := newFakeTree(t).exported(t)
	rng := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	for kills := 0; kills < 20; {
		events := rng.IntN(12)
		if exportAndKill(t, dir, events) {
			wantSame(t, contents(t, dir), want)
			dir = t.TempDir() // it was complete before it was killed
			continue
		}
		kills++
		wantOnlyWhole(t, dir, want)
	}
	for !exportAndKill(t, dir, 1<<30) {
		t.Fatal("the last run did not end by itself")
	}
	wantSame(t, contents(t, dir), want)
}

// exportAndKill runs an export in a process, kills it after some events, and says whether it
// had come to its end before.
func exportAndKill(t *testing.T, dir string, events int) (complete bool) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestExportChild$", "-test.v")
	c.Env = append(os.Environ(), "DEQUANTFS_TEST_EXPORT="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		complete = complete || lines.Text() == "complete"
		if strings.HasPrefix(lines.Text(), "event ") {
			if events--; events < 0 {
				c.Process.Kill()
			}
		}
	}
	err = c.Wait()
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return complete
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(said, "\n"))
	}
	return complete
}
