package adapter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/testdata/mutate"
)

const (
	nobody    = 65534
	nobodyEnv = "DEQUANTFS_TEST_NOBODY"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case mutate.IsChild():
		err = mutate.Serve()
	case os.Getenv(nobodyEnv) != "":
		err = readAsNobody()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// reader reads a source that is held open.
type reader interface {
	unseen() []string
	// read says what the bytes of the tensor are: "old", "other", "changed" if that is the error,
	// or another error.
	read() string
	close() error
}

// ownReader reads in this process.
type ownReader struct{ c *adapter.Checkpoint }

func (r ownReader) unseen() []string { return r.c.Unseen() }

func (r ownReader) read() string {
	s, ok := r.c.Tensor(wideKey)
	if !ok {
		return "no tensor"
	}
	p := make([]byte, len(wideBytes))
	_, err := s.File.ReadAt(context.Background(), p, s.Offset)
	switch {
	case errors.Is(err, adapter.ErrChanged):
		return "changed"
	case err != nil:
		return err.Error()
	case bytes.Equal(p, wideBytes):
		return "old"
	}
	return "other"
}

func (r ownReader) close() error { return r.c.Close() }

// otherReader reads in a child process that runs as an unprivileged user.
type otherReader struct {
	*nobodyChild
	lacks []string
}

// nobodyChild is the child's other end.
type nobodyChild struct {
	cmd *exec.Cmd
	ask *json.Encoder
	in  io.Closer
	say *json.Decoder
}

// readAsNobody is what the child does: it opens the folder of each line of its input and says what
// it would not see of it. For an empty line it says what it reads.
func readAsNobody() error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody),
		syscall.Setuid(nobody)); err != nil {
		return err
	}
	var r ownReader
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var dir string
		if err := in.Decode(&dir); err != nil {
			return nil // it is over
		}
		if dir == "" {
			if err := out.Encode(r.read()); err != nil {
				return err
			}
			continue
		}
		if r.c != nil {
			r.c.Close()
		}
		var err error
		if r.c, err = adapter.Open(context.Background(), dir, adapter.OpenOptions{}); err == nil {
			err = out.Encode(r.unseen())
		}
		if err != nil {
			return err
		}
	}
}

// startNobody starts the child, which ends with the test.
func startNobody(t *testing.T) *nobodyChild {
	t.Helper()
	c := &nobodyChild{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), nobodyEnv+"=1")
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.ask, c.in, c.say = json.NewEncoder(in), in, json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.in.Close(), c.cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// call says a line and takes in the answer.
func (c *nobodyChild) call(line string, answer any) error {
	return errors.Join(c.ask.Encode(line), c.say.Decode(answer))
}

func (c *nobodyChild) open(dir string) (reader, error) {
	r := &otherReader{nobodyChild: c}
	return r, c.call(dir, &r.lacks)
}

func (r *otherReader) unseen() []string { return r.lacks }

func (r *otherReader) read() (said string) {
	if err := r.call("", &said); err != nil {
		return err.Error()
	}
	return said
}

func (r *otherReader) close() error { return nil } // it reads another one next

func openOwn(dir string) (reader, error) {
	c, err := adapter.Open(context.Background(), dir, adapter.OpenOptions{})
	return ownReader{c}, err
}

// wideKey is the tensor of the wide source. Its bytes begin on a page.
const wideKey = "wide"

var wideBytes = bytes.Repeat([]byte{1, 2, 3, 4}, 16<<10)

// wideSource writes a source of one shard, which everybody may read.
func wideSource(t *testing.T, dir string) (shard string) { return sourceOf(t, dir, wideBytes) }

// sourceOf writes one with other bytes.
func sourceOf(t *testing.T, dir string, data []byte) (shard string) {
	t.Helper()
	_, b, err := safetensors.NewHeader([]safetensors.Tensor{{Name: wideKey, DType: safetensors.U8,
		Shape: []int64{int64(len(data))}}}, nil, 4096)
	if err != nil || len(b)%4096 != 0 {
		t.Fatal(len(b), err)
	}
	write(t, dir, "config.json", []byte(`{"model_type":"deepseek_v3"}`))
	write(t, dir, "model.safetensors", append(b, data...))
	return filepath.Join(dir, "model.safetensors")
}

// onSystem makes a file system for the test.
func onSystem(t *testing.T, s mutate.System) (root string) {
	t.Helper()
	root, end, err := s.Mount(enterable(t))
	if err != nil {
		if required("filesystems") {
			t.Fatal(err)
		}
		t.Skipf("no %s here: %v", s.Name, err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return root
}

// enterable makes a directory that everybody may enter.
func enterable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// required says whether the environment demands that a test with this need runs.
func required(need string) bool {
	return slices.Contains(strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ","), need)
}

// sight is what a file is read through, and what happens to it.
type sight struct {
	system, early, op string
	nobody            bool
}

// leased says that there is a lease.
func (s sight) leased() bool {
	return !s.nobody && s.early == "" && !strings.Contains(s.system, "overlay") &&
		s.system != "fuse"
}

// want is what is read then, and after the time of modification was put back, and after something
// harmless was done too.
func (s sight) want() (now, later string) {
	m := mutate.Mutations[s.op]
	switch {
	case s.leased() && (m.Harmless || s.op == "utimens"):
		return "old", "old"
	case s.leased():
		return "changed", "changed"
	case s.system == "fuse" && s.nameless(): // its server finds files by name
		return "model.safetensors: no such file or directory",
			"model.safetensors: no such file or directory"
	case mutate.Unseen[s.system] == s.op &&
		(s.system != "volatile overlay" || s.early == "dirty mapping"):
		return "other", "changed"
	case slices.Contains([]string{"read by another program", "bind mount over it",
		"open for writing"}, s.op):
		return "old", "changed"
	}
	return "changed", "changed"
}

// nameless says that nothing harmless can be done to the file afterwards: its name is gone, or that
// of another one.
func (s sight) nameless() bool { return s.op == "unlink" || s.op == "rename another over" }

// warned says whether something may go unseen.
func (s sight) warned() bool {
	return !s.leased() && s.system != "btrfs"
}

// sights are all that is tried on a file system: each change alone, and the doubtful ones after
// something that was there before the file was opened.
func sights(system string) (all []sight) {
	for op := range mutate.Mutations {
		for _, nobody := range []bool{false, true} {
			all = append(all, sight{system, "", op, nobody})
		}
	}
	for _, early := range mutate.Early[1:] {
		for _, op := range []string{"mapped store", "write", "exchange blocks", "link",
			"read by another program"} {
			if early == "dirty mapping" && op == "exchange blocks" {
				continue // the page cache keeps mapped pages
			}
			all = append(all, sight{system, early, op, false})
			if early == "dirty mapping" {
				all = append(all, sight{system, early, op, true})
			}
		}
	}
	return all
}

// unsupported says that a file system has no such change.
func unsupported(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "not supported") ||
		strings.Contains(err.Error(), "inappropriate ioctl"))
}

// TestWhatIsSeenOfEachChange changes a file in every way on every file system, as its owner and as
// another user. A read gives the old bytes or fails. The README lists the changes that go unseen,
// and mounts warn of them.
func TestWhatIsSeenOfEachChange(t *testing.T) {
	for _, system := range mutate.Systems {
		t.Run(system.Name, func(t *testing.T) {
			root := onSystem(t, system)
			child := startChild(t)
			other := startNobody(t)
			for i, s := range sights(system.Name) {
				dir := filepath.Join(root, fmt.Sprint(i))
				shard := wideSource(t, dir)
				if err := child.Begin(shard, s.early); err != nil {
					t.Fatal(err)
				}
				open := openOwn
				if s.nobody {
					open = other.open
				}
				r, err := open(dir)
				if err != nil {
					t.Fatal(err)
				}
				s.try(t, child, r)
				if err := errors.Join(r.close(), child.End(), os.RemoveAll(dir)); err != nil {
					t.Errorf("%+v: %v", s, err)
				}
			}
		})
	}
}

// try changes the file and reads it.
func (s sight) try(t *testing.T, child *mutate.Child, r reader) {
	t.Helper()
	if got := r.unseen(); len(got) > 0 != s.warned() {
		t.Errorf("%+v: warned of %q", s, got)
	}
	if got := r.read(); got != "old" {
		t.Errorf("%+v: at first %s", s, got)
	}
	err := child.Do(mutate.Op{Name: s.op, Off: 3 << 12, Len: 2 << 12})
	now, later := s.want()
	if unsupported(err) {
		now, later = "old", "changed"
		if s.leased() {
			now, later = r.read(), r.read() // whether it has opened the file is its own affair
		}
	} else if err != nil {
		t.Errorf("%+v: %v", s, err)
	}
	if got := r.read(); got != now {
		t.Errorf("%+v: %s, want %s", s, got, now)
	}
	for _, op := range []string{"utimens", "link and unlink"} {
		if err := child.Do(mutate.Op{Name: op}); err != nil && !s.nameless() &&
			s.op != "bind mount over it" {
			t.Errorf("%+v: %s: %v", s, op, err)
		}
		if got := r.read(); got != later {
			t.Errorf("%+v, then %s: %s, want %s", s, op, got, later)
		}
	}
}

// startChild starts a process that changes files, until the test ends.
func startChild(t *testing.T) *mutate.Child {
	t.Helper()
	child, err := mutate.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := child.Close(); err != nil {
			t.Error(err)
		}
	})
	return child
}

// system finds a file system.
func system(t *testing.T, name string) mutate.System {
	t.Helper()
	for _, s := range mutate.Systems {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no %s", name)
	panic("unreachable")
}

// TestChangesBehindAnOverlayOrAFUSEMountAreSeen changes files where they really lie. An exchange of
// blocks is not noticed, which is warned of.
func TestChangesBehindAnOverlayOrAFUSEMountAreSeen(t *testing.T) {
	for _, name := range []string{"overlay", "overlay in memory", "fuse"} {
		t.Run(name, func(t *testing.T) {
			root := onSystem(t, system(t, name))
			child := startChild(t)
			for op, m := range mutate.Mutations {
				if m.Harmless || op == "open for writing" || op == mutate.Unseen[name] {
					continue
				}
				want := "changed"
				if op == "exchange blocks" {
					want = "other" // it leaves the times as they are
				}
				dir := filepath.Join(root, strings.ReplaceAll(op, " ", "-"))
				wideSource(t, dir)
				r, err := openOwn(dir)
				if err != nil {
					t.Fatal(err)
				}
				above := filepath.Join(dir, "model.safetensors")
				shard := filepath.Join(mutate.Behind(root), filepath.Base(dir), "model.safetensors")
				err = errors.Join(child.Begin(shard, ""),
					child.Do(mutate.Op{Name: op, Len: 2 << 12, Off: 3 << 12}))
				forget(t, above) // a FUSE mount has pages of its own
				if unsupported(err) {
					err = nil
				} else if got := r.read(); got != want {
					t.Errorf("%s: %s, want %s", op, got, want)
				}
				if err := errors.Join(err, r.close(), child.End()); err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

// TestATruncationThroughAnOverlayIsSeenInItsLayer cuts and regrows a file through an overlay, which
// opens nothing for that, so that a lease on the file in the layer holds.
func TestATruncationThroughAnOverlayIsSeenInItsLayer(t *testing.T) {
	for _, name := range []string{"overlay", "overlay in memory"} {
		t.Run(name, func(t *testing.T) {
			root := onSystem(t, system(t, name))
			above, layer := filepath.Join(root, "source"),
				filepath.Join(mutate.Behind(root), "source")
			wideSource(t, above)
			r, err := openOwn(layer)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			child := startChild(t)
			err = child.Begin(filepath.Join(above, "model.safetensors"), "")
			for _, op := range []string{"link and unlink", "truncate and regrow", "utimens",
				"link and unlink"} {
				if op == "truncate and regrow" && r.read() != "old" {
					t.Error("a link is no change")
				}
				err = errors.Join(err, child.Do(mutate.Op{Name: op, Len: 2 << 12, Off: 3 << 12}))
			}
			if got := r.read(); got != "changed" || err != nil {
				t.Errorf("%s, %v", got, err)
			}
			if err := child.End(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAChangeRightAfterOpeningIsSeen rewrites new files as soon as they are open, and puts their
// time back. The unprivileged reader has no lease that would show it.
func TestAChangeRightAfterOpeningIsSeen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to read as nobody")
	}
	other, child, root := startNobody(t), startChild(t), enterable(t)
	for i := range 50 {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := child.Begin(wideSource(t, dir), ""); err != nil {
			t.Fatal(err)
		}
		r, err := other.open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(child.Do(mutate.Op{Name: "write", Len: 1 << 12}),
			child.Do(mutate.Op{Name: "utimens"}), child.End()); err != nil {
			t.Fatal(err)
		}
		if got := r.read(); got != "changed" {
			t.Errorf("try %d: %s", i, got)
		}
	}
}

// TestFilesAreWarnedOfInOneLine wants a line for each kind of file, however many there are.
func TestFilesAreWarnedOfInOneLine(t *testing.T) {
	root := onSystem(t, system(t, "tmpfs"))
	dir := filepath.Join(root, "source")
	shard := wideSource(t, dir)
	for _, name := range []string{"tokenizer.json", "generation_config.json"} {
		write(t, dir, name, []byte("{}"))
	}
	other := startNobody(t)
	r, err := other.open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"model.safetensors (and 2 more): on tmpfs, owned by another user: reads do " +
		"not notice stores through a mapping, nor holes while they are punched; mount as the " +
		"owner or as root (with CAP_LEASE)"}
	if got := r.unseen(); !slices.Equal(got, want) {
		t.Errorf("nobody: %q", got)
	}
	w, err := os.OpenFile(shard, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	own, err := openOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer own.close()
	want = []string{"model.safetensors: on tmpfs, open for writing: reads do not notice stores " +
		"through a mapping, nor holes while they are punched; end the program that has it open, " +
		"and mount again"}
	if got := own.unseen(); !slices.Equal(got, want) {
		t.Errorf("open for writing: %q", got)
	}
}

// TestAHoleInMemoryIsNoticedOnceItIsThere reads while a large hole is punched into a file in
// memory. Without a lease reads of the hole may succeed until it is finished; with one they never
// do.
func TestAHoleInMemoryIsNoticedOnceItIsThere(t *testing.T) {
	for early, tries := range map[string]int{"descriptor": 200, "": 5} {
		t.Run(fmt.Sprintf("first %q", early), func(t *testing.T) {
			dir := filepath.Join(onSystem(t, system(t, "tmpfs")), "source")
			child := startChild(t)
			seen := false
			for try := 0; try < tries && !seen; try++ {
				seen = readWhilePunching(t, child, dir, early)
			}
			if seen != (early != "") {
				t.Errorf("reads of the hole succeeded: %v", seen)
			}
		})
	}
}

// readWhilePunching says whether a read of a hole has succeeded while it was punched. Once it is
// there none does.
func readWhilePunching(t *testing.T, child *mutate.Child, dir, early string) (seen bool) {
	t.Helper()
	const size = 32 << 20
	shard := sourceOf(t, dir, bytes.Repeat([]byte{7}, size))
	if err := child.Begin(shard, early); err != nil {
		t.Fatal(err)
	}
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := c.Tensor(wideKey)
	punched := make(chan error)
	go func() { punched <- child.Do(mutate.Op{Name: "punch", Off: 4096, Len: size}) }()
	p := []byte{0}
	for i := 0; ; i++ {
		select {
		case err = <-punched:
			if _, still := s.File.ReadAt(t.Context(), p, s.Offset); !errors.Is(still,
				adapter.ErrChanged) {
				t.Errorf("after that: %v", still)
			}
			if err := errors.Join(err, c.Close(), child.End()); err != nil {
				t.Error(err)
			}
			return seen
		default:
			if _, err := s.File.ReadAt(t.Context(), p, s.Offset+int64(i*4096%size)); err == nil &&
				p[0] != 7 {
				seen = true
			}
		}
	}
}

// forget drops a file from the page cache.
func forget(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0,
		unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
}
