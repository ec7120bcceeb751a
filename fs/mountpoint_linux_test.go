package fs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// TestMountpointsAreResolvedAsTheKernelDoes compares with what the kernel makes of the same path.
func TestMountpointsAreResolvedAsTheKernelDoes(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"mnt", "far/away/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{
		"one": "mnt", "two": "one", "three": dir + "/two", "slash": "three/", "dot": "three/.", "folder": "far/away/deep",
		"up": "folder/../../../mnt", "updown": "folder/../../../folder/..", "self": "self", "none": "missing", "40": "mnt",
	}
	for i := range 40 {
		links[strconv.Itoa(i)] = strconv.Itoa(i + 1)
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, name := range []string{
		"mnt", "mnt/", "one", "two", "three", "slash", "dot", "folder", "folder/x", "up", "updown", dir + "/three", "./two", "1", "0",
	} {
		want, wantErr := kernelPath(name)
		if got, err := ResolveMountpoint(name); got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %q, %v; the kernel says %q, %v", name, got, err, want, wantErr)
		}
	}
	if got, err := ResolveMountpoint("none"); got != filepath.Join(dir, "missing") || err != nil {
		t.Errorf("a link to what is missing: %q, %v", got, err)
	}
	if _, err := ResolveMountpoint("self"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
	if _, err := ResolveMountpoint("missing/x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("below what is missing: %v", err)
	}
}

// kernelPath opens a folder, made if it is missing, and asks where it is.
func kernelPath(path string) (string, error) {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}
