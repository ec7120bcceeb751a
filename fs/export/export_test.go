package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
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

	"github.com/google/go-cmp/cmp"
)

// restore writes files into a directory.
func restore(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o777)
		if err := errors.Join(err, os.WriteFile(path, []byte(data), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
}

// contents reads all files below dir.
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

// sums replaces contents by sizes and checksums, so that differences are short.
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

// exported returns the files of an export without interruptions.
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

// checkManifest computes all checksums of a manifest again.
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
		t.Errorf("%d files and %d tensors in the manifest, %d files",
			len(m.Files), tensors, len(files))
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

func TestExportContinuesAfterAnError(t *testing.T) {
	tree, dir := newFakeTree(t), t.TempDir()
	want := tree.exported(t)
	broken := "model-00003-of-00003.safetensors"
	tree[broken].failAt = 10 * testChunk
	_, err := tree.export(context.Background(), dir, Options{Jobs: 1})
	if !errors.Is(err, errFake) || !mentions(err, broken) {
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

// wantOnlyWhole checks that every file under its final name is whole, and returns the names.
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

func TestExportRefusesForeignFiles(t *testing.T) {
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
			if !mentions(err, test.want, dir) {
				t.Errorf("error %v, want one with %q and the directory", err, test.want)
			}
			var foreign *ForeignError
			if errors.As(err, &foreign) != (test.want != exportName) {
				t.Errorf("error %v is a ForeignError: %v", err, foreign != nil)
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

// begin writes the state of an unfinished export with a changed manifest.
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
				o := Options{Part: i, Parts: parts}
				complete[i], errs[i] = tree.export(context.Background(), dir, o)
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
	o := Options{Part: 4, Parts: 4}
	_, err := newFakeTree(t).export(context.Background(), t.TempDir(), o)
	if !mentions(err, "parts are numbered from 0 to 3") {
		t.Errorf("part 4 of 4: error %v", err)
	}
}

func TestOneFileIsNotWrittenByTwoExports(t *testing.T) {
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
	if _, err := createTarget(dir, "partial", 10); !mentions(err, "another export") {
		t.Errorf("error %v", err)
	}
}

// TestExportChild is the process that TestExportSurvivesKills kills. It prints a line for each
// event, so that it can be killed after a chosen number of events.
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

// exportAndKill runs an export in a process and kills it after some events. It reports whether the
// export was complete before.
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
