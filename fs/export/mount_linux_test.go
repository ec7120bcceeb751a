package export

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs"
)

// needFUSE skips a test where the system has no FUSE.
func needFUSE(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if required("fuse") {
			t.Fatal(err)
		}
		t.Skipf("no FUSE: %v", err)
	}
	unix.Close(fd)
}

// mounted mounts a tree until the test ends and returns the mountpoint.
func mounted(t testing.TB, f *fs.FS) string {
	t.Helper()
	needFUSE(t)
	dir := t.TempDir()
	m, err := f.Mount(dir, fs.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		m.Wait()
	})
	return dir
}
