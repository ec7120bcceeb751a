package fs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// connections returns the descriptors of /dev/fuse in a list of descriptors.
func connections(t *testing.T, list string) (fds []string) {
	t.Helper()
	names, err := os.ReadDir(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if to, _ := os.Readlink(filepath.Join(list, n.Name())); to == "/dev/fuse" {
			fds = append(fds, n.Name())
		}
	}
	return fds
}

// A thread that waits for a mount of its process must not keep the connection of that mount.
func TestLookingUpHoldsNoConnection(t *testing.T) {
	needFUSE(t)
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := connections(t, "/proc/self/fd")
	if len(before) == 0 {
		t.Fatal("no descriptor of /dev/fuse")
	}
	dir, asked := t.TempDir(), 0
	lookUp([]string{dir, filepath.Join(dir, "none"), dir}, func(int) bool {
		asked++
		if held := connections(t, "/proc/thread-self/fd"); len(held) > 0 {
			t.Errorf("the thread that looks holds %v", held)
		}
		return true
	})
	if asked != 3 {
		t.Errorf("%d files were looked at, not 3", asked)
	}
	if after := connections(t, "/proc/self/fd"); !slices.Equal(after, before) {
		t.Errorf("the process has %v, and had %v", after, before)
	}
}
