// Package inmemory gives tests folders for files that are written, read once and removed. In memory
// that takes less time than on a disk. Tests of what a file system does belong on a disk.
//
// Only tests import it.
package inmemory

import (
	"os"
	"testing"
)

// needed is how much memory the file system must have free. The largest source of a test has a
// hundred megabytes, and two test programs may run at a time.
const needed = 1 << 30

// Dir returns a new folder, which is removed at the end of the test. It is that of t.TempDir where
// no file system in memory has room.
func Dir(t testing.TB) string {
	t.Helper()
	root := roomy()
	if root == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(root, "dequantfs-test.")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
