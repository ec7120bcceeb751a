package adapter_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter"
)

// swapping puts each of the targets behind a name in turn, in one step each, until the
// function that it gives is called.
func swapping(t *testing.T, path string, targets ...string) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			next := path + ".next"
			if err := os.Symlink(targets[i%len(targets)], next); err != nil {
				t.Error(err)
				return
			}
			if err := os.Rename(next, path); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		close(done)
		swapper.Wait()
	}
}

// TestALinkThatIsSwappedWhileOpeningLeadsNowhereElse lets a shard's link, and a folder on
// its way, lead inside and outside in turn. What is opened has the bytes of the inside.
func TestALinkThatIsSwappedWhileOpeningLeadsNowhereElse(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "x", append(shard(t, head)[:len(shard(t, head))-4], "evil"...))
	pipe := filepath.Join(outside, "pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		link    string // to what the shard's name is a link from the start
		swapped string
		targets []string
	}{
		{"file", "real/x", shard2, []string{"real/x", filepath.Join(outside, "x")}},
		{"file, relative", "real/x", shard2, []string{"real/x", "../" + filepath.Base(outside) + "/x", "absent"}},
		{"folder on the way", "way/x", "way", []string{"real", outside}},
		{"folder on the way, twice", "way/../way/x", "way", []string{"real", outside}},
		{"pipe inside", "real/x", shard2, []string{"real/x", "real/pipe", pipe, "/dev/zero"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := source(t, t.TempDir())
			write(t, filepath.Join(dir, "real"), "x", shard(t, head))
			if err := syscall.Mkfifo(filepath.Join(dir, "real", "pipe"), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.swapped != shard2 {
				link(t, c.targets[0], filepath.Join(dir, c.swapped))
			}
			remove(t, dir, shard2)
			link(t, c.link, filepath.Join(dir, shard2))
			bytesOf(t, open(t, dir), head) // before swapping it can be opened
			defer swapping(t, filepath.Join(dir, c.swapped), c.targets...)()
			for range 200 {
				openedInside(t, dir)
			}
		})
	}
}

// TestASubfolderThatIsSwappedWhileOpeningShowsNothingFromElsewhere puts a link to the
// outside, a pipe and the folder itself in one place in turn, and does the same with a file
// in the folder.
func TestASubfolderThatIsSwappedWhileOpeningShowsNothingFromElsewhere(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "x", []byte("evil"))
	dir := source(t, t.TempDir())
	write(t, filepath.Join(dir, "sub"), "x", []byte("good"))
	write(t, filepath.Join(dir, "files"), "y", []byte("good"))
	link(t, "y", filepath.Join(dir, "files", "x"))
	if n := len(open(t, dir).SideFiles()); n != 3 { // before swapping
		t.Fatalf("%d side files", n)
	}
	defer swapping(t, filepath.Join(dir, "files", "x"), "y", filepath.Join(outside, "x"),
		"../../"+filepath.Base(outside)+"/x", "/dev/zero")()

	sub, away := filepath.Join(dir, "sub"), filepath.Join(dir, ".away")
	others := []func() error{
		func() error { return os.Symlink(outside, sub) },
		func() error { return syscall.Mkfifo(sub, 0o644) },
	}
	done := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			for _, step := range []func() error{
				func() error { return os.Rename(sub, away) }, others[i%2],
				func() error { return os.Remove(sub) }, func() error { return os.Rename(away, sub) },
			} {
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer swapper.Wait()
	defer close(done)
	for range 300 {
		c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.SideFiles() {
			data := make([]byte, s.Size)
			if n, err := s.File.ReadAt(t.Context(), data, 0); err == nil &&
				string(data[:n]) != "good" {
				t.Errorf("%s: read %q from outside", s.Name, data[:n])
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// openedInside opens a source and makes sure that it is the right one, or refused:
// which error it is depends on the moment.
func openedInside(t *testing.T, dir string) {
	t.Helper()
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		return
	}
	defer c.Close()
	if got := string(bytesOf(t, c, head)); got != "\x00\x00\x00\x00" {
		t.Errorf("read %q from outside", got)
	}
}

func TestADeviceIsNoShardEvenWhereLinksAreFollowed(t *testing.T) {
	dir := source(t, t.TempDir())
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"/dev/zero": "a device", pipe: "a named pipe",
		"/": "a directory"} {
		remove(t, dir, shard2)
		link(t, target, filepath.Join(dir, shard2))
		c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{FollowLinks: true})
		if err == nil {
			_ = c.Close()
		}
		if err == nil ||
			!strings.Contains(err.Error(), shard2+": "+want+" where a regular file should be") {
			t.Errorf("%s: got %v", target, err)
		}
	}
}

func TestTheFilesOfAnOpenCheckpointAreNotResolvedAgain(t *testing.T) {
	dir := source(t, t.TempDir())
	c := open(t, dir)
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	source(t, dir)
	write(t, dir, shard2, []byte("something else"))
	if got := string(bytesOf(t, c, head)); got != "\x00\x00\x00\x00" {
		t.Errorf("read %q", got)
	}
}

// unprivilegedEnv is set in the process that lacks root's right to read everything.
const unprivilegedEnv = "DEQUANTFS_TEST_UNPRIVILEGED"

// unprivileged reports whether the process lacks root's right to read everything. If it does not,
// the test runs again in a process that does. Not even a thread can lack it here, because several
// threads open a source.
func unprivileged(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 || os.Getenv(unprivilegedEnv) != "" {
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), unprivilegedEnv+"=1")
	failed := make(chan error)
	go func() { // the thread ends with the goroutine, and so does what it lacks
		runtime.LockOSThread()
		for _, c := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				failed <- err
				return
			}
		}
		out, err := again.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
	return false
}

func TestFilesThatMayNotBeRead(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	for _, c := range []struct{ name, want string }{ // want: of the error; empty: it is left out
		{"config.json", "config.json: permission denied"},
		{index, index + ": permission denied"},
		{shard2, shard2 + ": permission denied"},
		{"tokenizer.json", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := source(t, t.TempDir())
			write(t, dir, "tokenizer.json", []byte("{}"))
			if err := os.Chmod(filepath.Join(dir, c.name), 0); err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				refuses(t, dir, c.want)
				return
			}
			if n := len(open(t, dir).SideFiles()); n != 0 {
				t.Errorf("%d side files", n)
			}
			if log := warnings(t, dir); !strings.Contains(log, c.name) ||
				!strings.Contains(log, "permission denied") {
				t.Errorf("log: %s", log)
			}
		})
	}
}
