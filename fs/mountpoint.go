package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many links the kernel follows.
const maxLinks = 40

// ResolveMountpoint returns a mountpoint's path without links, as the kernel knows it. It does not
// look at the mountpoint itself, since a dead mount would make that fail.
func ResolveMountpoint(path string) (string, error) {
	at, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range maxLinks + 1 {
		i := strings.LastIndexByte(at, filepath.Separator)
		dir, name := at[:i+1], at[i+1:]
		if name == "" || name == "." || name == ".." {
			return filepath.EvalSymlinks(at) // the end of a link
		}
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return "", fmt.Errorf("%s: %w", path, cause(err))
		}
		link, notLink := os.Readlink(filepath.Join(dir, name))
		switch {
		case notLink != nil:
			return filepath.Join(dir, name), nil
		case filepath.IsAbs(link):
			at = link
		default:
			// not cleaned: the name before a .. may be a link
			at = dir + string(filepath.Separator) + link
		}
		at = strings.TrimRight(at, string(filepath.Separator))
	}
	return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// cause drops the operation and the path from an error of package os.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
