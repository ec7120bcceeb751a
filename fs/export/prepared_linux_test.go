package export

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// put replaces a file by another kind of file. Links lead to the target.
func put(t testing.TB, name, kind, target string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.RemoveAll(name)); err != nil {
		t.Fatal(err)
	}
	var err error
	switch kind {
	case "a FIFO":
		err = unix.Mkfifo(name, 0o666)
	case "a device":
		err = unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) // as /dev/zero
		if errors.Is(err, unix.EPERM) {                                   // that takes root
			err = unix.Mkfifo(name, 0o666)
		}
	case "a socket":
		err = makeSocket(name)
	case "a directory":
		err = os.Mkdir(name, 0o777)
	case "a link":
		err = os.Symlink(target, name)
	case "a hard link":
		err = os.Link(target, name)
	case "a file":
		err = os.WriteFile(name, []byte("mine"), 0o666)
	default:
		t.Fatalf("unknown kind %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// makeSocket creates a socket. Its path may be longer than the address of a socket.
func makeSocket(name string) error {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: short})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// lookAt describes a file, or all files of a directory: kinds, contents and targets of links.
func lookAt(t testing.TB, name string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(name, func(path string, d iofs.DirEntry, err error) error {
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(name, path)
		all[rel], err = describeFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// describeFile returns the kind and the contents of a file.
func describeFile(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	kind := readback.Kind(info.Mode())
	switch kind {
	case "a file":
		if info.Size() > 1<<20 {
			return kind + " that is large", nil
		}
		data, err := os.ReadFile(path)
		return kind + ": " + string(data), err
	case "a link":
		target, err := os.Readlink(path)
		return kind + " to " + target, err
	}
	return kind, nil
}

// newVictim creates a directory outside of the export. No export may change it.
func newVictim(t testing.TB, dir string) map[string]string {
	t.Helper()
	restore(t, dir, map[string]string{
		"secret": "secret", "manifest.json": "{}", "dir/keep": "keep", "dir/empty": "",
	})
	return lookAt(t, dir)
}

// within runs a function that must return.
func within(t testing.TB, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(size.Patience()):
		t.Fatalf("%s hangs", what)
	}
}

func TestExportLeavesPreparedFilesAlone(t *testing.T) {
	const part = "hf/model-00002-of-00002.safetensors"
	tree := newTinyTree(t)
	begun := begunUntil(t, tree, t.TempDir(), part)
	for _, name := range []string{
		stateDir, inState(exportName), inState(manifestName), inState(recordsDir),
		inState(partialDir), inState("notes"), inState("partial/notes"),
		inState("records/hf/notes.json"), inState(".new-12"), inState("records/.new-12"),
		inState("stats.json"), inState("a/b"),
		partialOf(part), partialOf("hf"), partialOf("hf/config.json"), partialOf("hf/1_Pooling"),
		recordOf(part), recordOf("hf/config.json"), recordOf("hf/1_Pooling/config.json"),
		part, "hf", "hf/config.json", "hf/1_Pooling", "hf/1_Pooling/config.json", "notes",
	} {
		for _, kind := range []string{
			"a link", "a FIFO", "a device", "a socket", "a directory", "a file", "a hard link",
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Run("new", func(t *testing.T) { prepared(t, tree, nil, name, kind) })
				t.Run("begun", func(t *testing.T) { prepared(t, tree, begun, name, kind) })
			})
		}
	}
}

// prepared exports into a directory where one file was replaced by another kind of file. The
// replacement must not change, and the error must name it. An export may replace a file under a
// name that it uses itself, but must not write through a link.
func prepared(t *testing.T, tree fakeTree, start map[string]string, name, kind string) {
	dir, victim := tempInMemory(t), tempInMemory(t)
	untouched := newVictim(t, victim)
	restore(t, dir, start)
	target := filepath.Join(victim, "dir")
	if kind == "a hard link" || strings.Contains(filepath.Base(name), ".") && name != stateDir {
		target = filepath.Join(victim, "secret")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	put(t, path, kind, target)
	before := lookAt(t, path)
	var err error
	within(t, "the export", func() { _, err = tree.export(context.Background(), dir, Options{}) })
	if d := cmp.Diff(untouched, lookAt(t, victim)); d != "" {
		t.Errorf("the export changed a file outside:\n%s", d)
	}
	replaceable := mayReplace(t, tree, start, name, kind)
	if d := cmp.Diff(before, lookAt(t, path)); d != "" && (err != nil || !replaceable) {
		t.Errorf("the export (%v) changed a prepared file:\n%s", err, d)
	}
	if err == nil {
		if !replaceable && !(name == "notes" && start != nil) {
			t.Error("it was not refused")
		}
		found, err := Verify(context.Background(), dir, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantDifferences(t, found, nil)
		for name := range tree {
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		return
	}
	above := filepath.Join(dir, stateDir, "a") // is refused before the files in it
	wanted := mentions(err, path) || mentions(err, above) ||
		mentions(err, dir+" is not empty") // no export is known to have been begun
	wayOut := mentions(err, "give another directory") ||
		mentions(err, "give an empty or a new directory")
	if !wanted || !wayOut {
		t.Errorf("error %v, want one that names %s and the way out", err, path)
	}
}

// mayReplace reports whether an export may replace or use a file. It must have a name and a kind
// that an export makes.
func mayReplace(t testing.TB, tree fakeTree, start map[string]string, name, kind string) bool {
	want, made := tree.manifest(t).made()[name]
	isDir := want.IsDir()
	for file := range tree {
		isDir = isDir || strings.HasPrefix(file, name+"/")
	}
	_, final := tree[name]
	switch kind {
	case "a file", "a hard link":
		return !isDir && (made || isTemp(filepath.Base(name)) || final && start != nil)
	case "a directory":
		return isDir
	}
	return false
}

func TestVerifyLooksAtFilesOnly(t *testing.T) {
	const name = "hf/model-00002-of-00002.safetensors"
	tree := newTinyTree(t)
	whole := tree.exported(t)
	for _, kind := range []string{
		"a FIFO", "a device", "a socket", "a directory", "a link to a FIFO", "a link to /dev/zero",
		"a link to nothing", "a link to itself", "a link to another file", "a link to its bytes",
	} {
		t.Run(kind, func(t *testing.T) {
			dir := tempInMemory(t)
			restore(t, dir, whole)
			path := filepath.Join(dir, name)
			target, linked := strings.CutPrefix(kind, "a link to ")
			want := "is " + kind + ", not a regular file"
			switch target {
			case "a FIFO":
				put(t, filepath.Join(dir, ".other", "fifo"), "a FIFO", "")
				target, want = filepath.Join(dir, ".other", "fifo"), "is a FIFO, not a regular file"
			case "/dev/zero":
				want = "is a device, not a regular file"
			case "nothing":
				want = "is missing"
			case "itself":
				target = filepath.Base(name)
				want = "cannot be opened: too many levels of symbolic links"
			case "another file":
				target, want = "config.json", "has 21 bytes, not "
			case "its bytes":
				target, want = filepath.Join(dir, ".other", "bytes"), ""
				write(t, target, whole[name])
			}
			if linked {
				put(t, path, "a link", target)
			} else {
				put(t, path, kind, "")
			}
			if kind == "a device" && os.Getuid() != 0 {
				want = "is a FIFO, not a regular file"
			}
			for _, verify := range []func() (*Verification, error){
				func() (*Verification, error) {
					return Verify(context.Background(), dir, VerifyOptions{})
				},
				func() (*Verification, error) { return tree.verify(dir) },
			} {
				var found *Verification
				var err error
				within(t, "verify", func() { found, err = verify() })
				if err != nil {
					t.Fatal(err)
				}
				if want == "" {
					wantDifferences(t, found, nil)
				} else {
					wantDifferences(t, found, []string{name + ": " + want})
				}
			}
		})
	}
}

func TestAManifestThatIsNotAFileIsRefused(t *testing.T) {
	whole := newTinyTree(t).exported(t)
	for _, kind := range []string{
		"a FIFO", "a device", "a socket", "a directory", "a link to a FIFO", "a link to /dev/zero",
	} {
		dir := tempInMemory(t)
		restore(t, dir, whole)
		name := filepath.Join(dir, stateDir, manifestName)
		put(t, filepath.Join(dir, "fifo"), "a FIFO", "")
		switch kind {
		case "a link to a FIFO":
			put(t, name, "a link", filepath.Join(dir, "fifo"))
		case "a link to /dev/zero":
			put(t, name, "a link", "/dev/zero")
		default:
			put(t, name, kind, "")
		}
		var err error
		within(t, "verify", func() { _, err = Verify(context.Background(), dir, VerifyOptions{}) })
		if !mentions(err, name, "not a regular file") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

// A link may replace a directory after the checks of the export. It must not be followed either.
func TestAnExportFollowsNoLinkThatIsSwappedIn(t *testing.T) {
	tree := newFakeTree(t)
	victim := t.TempDir()
	untouched := newVictim(t, victim)
	for _, name := range []string{partialDir, recordsDir, "partial/hf", "hf"} {
		dir := tempInMemory(t)
		path := filepath.Join(dir, stateDir, filepath.FromSlash(name))
		if name == "hf" {
			path = filepath.Join(dir, name)
		}
		swapped := false
		_, err := tree.export(context.Background(), dir, Options{Jobs: 1, Progress: func(e Event) {
			if _, err := os.Lstat(path); err == nil && !swapped && e.Kind == Finished {
				swapped = true
				err := os.Rename(path, path+"-away")
				err = errors.Join(err, os.Symlink(filepath.Join(victim, "dir"), path))
				if err != nil {
					t.Error(err)
				}
			}
		}})
		if !swapped || err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: swapped %v, error %v", name, swapped, err)
		}
		if d := cmp.Diff(untouched, lookAt(t, victim)); d != "" {
			t.Errorf("%s: the export changed a file outside:\n%s", name, d)
		}
	}
}

// swapping calls exchange again and again while try runs, which reports whether it found the state
// that the test is about. It is called often, and until it has found it.
func swapping(t *testing.T, exchange func(i int), try func() bool) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				exchange(i)
			}
		}
	}()
	found := 0
	for i, end := 0, time.Now().Add(time.Minute); i < 20_000 || found == 0; i++ {
		if try() {
			found++
		}
		if found == 0 && i%1000 == 0 {
			runtime.Gosched() // one processor may not have run the other goroutine at all
			if time.Now().After(end) {
				t.Error("what the test is about never happened")
				break
			}
		}
	}
	close(stop)
	<-stopped
}

func TestAFileThatIsExchangedWhileItIsOpenedIsRefused(t *testing.T) {
	d := openPlace(t, map[string]string{"a": "a", "b": "b"})
	at := func(name string) string { return filepath.Join(d.path, name) }
	swapping(t, func(i int) {
		os.Remove(at("new"))
		if i%2 == 0 {
			os.Symlink("b", at("new"))
		} else {
			os.Link(at("a"), at("new"))
		}
		os.Rename(at("new"), at("name"))
	}, func() bool {
		f, err := d.open("name", os.O_RDONLY)
		if err != nil {
			return false
		}
		defer f.Close()
		var got [1]byte
		if n, _ := f.Read(got[:]); n != 1 || got[0] != 'a' {
			t.Errorf("%q was read through a link", got)
		}
		return true
	})
}

func TestNothingIsWrittenThroughALinkThatIsMadeMeanwhile(t *testing.T) {
	d := openPlace(t, map[string]string{"b": "b"})
	at := func(name string) string { return filepath.Join(d.path, name) }
	swapping(t, func(i int) {
		os.Symlink("b", at("name"))
		os.Remove(at("name"))
	}, func() bool {
		f, err := d.create("name")
		if err != nil {
			return false
		}
		f.Write([]byte("mine"))
		f.Close()
		d.remove("name", 0)
		return true
	})
	if data, err := os.ReadFile(at("b")); err != nil || string(data) != "b" {
		t.Errorf("%q is in it: %v", data, err)
	}
}

// openPlace opens a directory with these files as the directory of an export.
func openPlace(t *testing.T, files map[string]string) *directory {
	t.Helper()
	dir := tempInMemory(t)
	restore(t, dir, files)
	d, err := openDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}
