package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a small disk in memory. This takes root.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if required("fuse") {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		t.Skipf("mounting a tmpfs takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestExportOntoAFullDisk(t *testing.T) {
	tree := newFakeTree(t)
	disk := mountTmpfs(t, "size=24m")
	dir := filepath.Join(disk, "export")
	ballast := filepath.Join(disk, "ballast")
	fill := func(leave int64) {
		t.Helper()
		free, ok := freeSpace(disk)
		if !ok {
			t.Fatal("the free space is not known")
		}
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(reserve(f, free-leave), f.Close()); err != nil {
			t.Fatal(err)
		}
	}

	fill(1 << 20)
	_, err := tree.export(context.Background(), dir, Options{})
	if !errors.Is(err, syscall.ENOSPC) || !mentions(err, "are free") {
		t.Fatalf("with no room from the beginning: error %v", err)
	}

	os.Remove(ballast)
	want := tree.exported(t)
	filled := false
	_, err = tree.export(context.Background(), dir, Options{Jobs: 1, Progress: func(e Event) {
		if e.Kind == Finished && !filled {
			filled = true
			fill(256 << 10)
		}
	}})
	wayOut := "make room and run the same command again"
	if !errors.Is(err, syscall.ENOSPC) || !mentions(err, wayOut) {
		t.Fatalf("with room that goes away: error %v", err)
	}
	if finished := wantOnlyWhole(t, dir, want); len(finished) == 0 {
		t.Error("nothing was finished before the disk was full")
	}

	os.Remove(ballast)
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, contents(t, dir), want)
}

func TestExportOntoAReadOnlyDisk(t *testing.T) {
	disk := mountTmpfs(t, "size=1m,ro")
	_, err := newFakeTree(t).export(context.Background(), filepath.Join(disk, "export"), Options{})
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), disk) {
		t.Errorf("error %v, want one that says read-only and where", err)
	}
}

// A disk takes direct writes and a tmpfs does not. The bytes must be the same.
func TestExportWithAndWithoutDirectWrites(t *testing.T) {
	tree := newFakeTree(t)
	dir := mountTmpfs(t, "size=64m")
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, contents(t, dir), tree.exported(t))
}
