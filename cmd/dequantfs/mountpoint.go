package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dequantfs/dequantfs/fs"
)

// realMountpoint returns the path by which the kernel will know a mountpoint. Its folder may be
// missing, and is then made later.
func realMountpoint(path string) (string, error) {
	if isDescriptor(path) {
		return path, nil
	}
	real, err := fs.ResolveMountpoint(path)
	if errors.Is(err, os.ErrNotExist) {
		return filepath.Abs(path)
	}
	return real, err
}

// absolute makes the path of an existing file absolute. Other names, such as that of a repository,
// are unchanged.
func absolute(name string) (string, error) {
	if _, err := os.Lstat(filepath.Dir(name)); name == "" || err != nil {
		return name, nil
	}
	return filepath.Abs(name)
}

// makeMountpoint makes a missing mountpoint and the missing folders above it. It returns the
// folders that it made, outermost first, also after an error.
func makeMountpoint(path string) (made []string, err error) {
	if isDescriptor(path) {
		return nil, nil
	}
	_, err = os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return makeFolders(path)
	case errors.Is(err, syscall.ENOTCONN):
		return nil, nil // a dead mount, which mounting clears
	}
	return nil, err
}

func makeFolders(path string) (made []string, err error) {
	var missing []string
	for at := path; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
			break
		}
		missing = append(missing, at)
	}
	for _, dir := range slices.Backward(missing) {
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue // another process was faster
		}
		if err != nil {
			return made, err
		}
		made = append(made, dir)
	}
	return made, nil
}

// entryOf returns the name of one entry of a folder, or "" if there is none or it cannot be listed.
func entryOf(path string) string {
	if isDescriptor(path) {
		return ""
	}
	dir, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(1)
	return strings.Join(names, "")
}

// removeFolders removes the folders that makeMountpoint made, if they are empty.
func removeFolders(made []string) {
	for _, dir := range slices.Backward(made) {
		if os.Remove(dir) != nil {
			return
		}
	}
}

// temporaryFolder makes a folder. On a machine with a read-only root it tries the places that are
// mostly in memory, too.
func temporaryFolder(name string) (string, error) {
	var first error
	for _, parent := range []string{
		os.TempDir(), os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm", "/run", ".",
	} {
		if parent == "" {
			continue
		}
		dir, err := os.MkdirTemp(parent, name)
		if err == nil {
			return filepath.Abs(dir)
		}
		if first == nil {
			first = err
		}
	}
	return "", withHint(first, "set TMPDIR to a folder that can be written")
}
