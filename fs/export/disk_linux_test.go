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

// mountTmpfs mounts a small disk in memory, which takes root.
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
	if _, err := tree.export(context.Background(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "are free") {
		t.Fatalf("with no room from the beginning: error %v", err)
	}

	os.Remove(ballast)
	want := tree.exported(t)
	filled := false
	_, err := tree.export(context.Background(), dir, Options{Jobs: 1, Progress: func(e Event) {
		if e.Kind == Finished && !filled {
			filled = true
			fill(256 << 10)
		}
	}})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room and run the same command again") {
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

// A tmpfs and a disk differ in whether they take direct writes; both must give the same bytes.
func TestExportWithAndWithoutDirectWrites(t *testing.T) {
	tree := newFakeTree(t)
	dir := mountTmpfs(t, "size=64m")
	if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, contents(t, dir), tree.exported(t))
}
