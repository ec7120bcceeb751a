package diskcache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/testdata/mutate"
)

// mountTmpfs mounts a small disk in memory. This takes root.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if required("filesystems") {
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

// keepTenth opens a cache that leaves a tenth of its disk free.
func keepTenth(t *testing.T, dir string) (*Cache, *warnings) {
	t.Helper()
	c, w := openCache(t, dir, 0)
	c.free = 0
	return c, w
}

// free is the free bytes of a disk, and all of them.
func freeOf(t *testing.T, dir string) (free, all int64) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	free, all, ok := space(d)
	if !ok {
		t.Fatal("the space is not known")
	}
	return free, all
}

// ballast fills a disk but for some bytes.
func ballast(t *testing.T, disk string, leave int64) {
	t.Helper()
	name := filepath.Join(disk, "ballast")
	os.Remove(name)
	free, _ := freeOf(t, disk)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, free-leave), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestATenthOfTheDiskStaysFree(t *testing.T) {
	disk := mountTmpfs(t, "size=4m")
	c, w := keepTenth(t, filepath.Join(disk, "cache"))
	for range 3 {
		filling.fill(c)
		if free, all := freeOf(t, disk); free < all/10 || free > all/3 {
			t.Errorf("%d of %d bytes are free", free, all)
		}
	}
	w.want(t)

	// Other files fill the disk: the cache makes room for them, until it has nothing left.
	for i := int64(0); len(w.all()) == 0 && i < 30; i++ {
		ballast(t, disk, 100<<10)
		c.Write(Key{"o", fmt.Sprint(i), "v"}, 0, make([]byte, 200<<10))
		if free, all := freeOf(t, disk); free < all/10 && len(w.all()) == 0 {
			t.Errorf("%d of %d bytes are free", free, all)
		}
	}
	w.want(t, "the disk is too full: 0 of 4 MiB are free, and a tenth stays so")
	if files, _ := filesIn(t, filepath.Join(disk, "cache")); len(files) > 0 {
		t.Errorf("files %v", files)
	}

	// After a while, blocks are kept again.
	ballast(t, disk, 2<<20)
	c.mu.Lock()
	c.resume = c.resume.Add(-pauseTime)
	c.mu.Unlock()
	filling.write(c, 1, 0)
	if !filling.readAll(t, c, 1, 0) {
		t.Error("no block is kept after there was room again")
	}
	w.want(t, "the disk is too full")
}

// A disk may be full although it tells that there is space: of names, of a quota. Reads go on.
func TestAFullDiskStopsKeepingForAWhile(t *testing.T) {
	for name, options := range map[string]string{"no space": "size=1m",
		"no names": "size=8m,nr_inodes=30"} {
		t.Run(name, func(t *testing.T) {
			disk := mountTmpfs(t, options)
			c, w := openCache(t, filepath.Join(disk, "cache"), 0)
			c.free = -1 // so that the disk itself says that it is full
			filling.fill(c)
			w.want(t, "blocks are not kept for now: ")
			if !strings.Contains(w.all()[0], "no space left on device") {
				t.Errorf("warning %q", w.all())
			}
			if !filling.readAll(t, c, 0, 0) {
				t.Error("a block from before is missed")
			}
			if n := filling.count(t, c); n == 0 {
				t.Error("no block is there")
			}
			temps, _ := os.ReadDir(filepath.Join(disk, "cache", "v1", "tmp"))
			if len(temps) > 0 {
				t.Errorf("temporary files are left: %v", temps)
			}
		})
	}
}

func TestAReadOnlyFolder(t *testing.T) {
	disk := mountTmpfs(t, "size=8m")
	dir := filepath.Join(disk, "cache")
	before, _ := openCache(t, dir, 0)
	filling.write(before, 0, 0)
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c, w := openCache(t, dir, 0)
	filling.fill(c)
	if n := filling.count(t, c); n != 1 {
		t.Errorf("%d blocks are there, want that from before", n)
	}
	w.want(t, "blocks are not kept for now: ")
	if !strings.Contains(w.all()[0], "read-only file system") {
		t.Errorf("warnings %q", w.all())
	}
	if _, err := Open(filepath.Join(disk, "new"), Options{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a new folder: error %v", err)
	}
}

// Each file system keeps blocks, and has room for others after some are removed.
func TestOnEveryFileSystem(t *testing.T) {
	for _, s := range mutate.Systems {
		t.Run(s.Name, func(t *testing.T) {
			root, end, err := s.Mount(t.TempDir())
			if err != nil {
				if required("filesystems") {
					t.Fatal(err)
				}
				t.Skipf("no %s here: %v", s.Name, err)
			}
			dir := filepath.Join(root, "cache")
			c, w := openCache(t, dir, filled()/2)
			for range 2 {
				filling.visit(t, c)
			}
			n := filling.count(t, c)
			if files, _ := filesIn(t, dir); n < int(filling.objects*filling.blocks)/4 ||
				n != len(files) {
				t.Errorf("%d blocks are there, of %d files", n, len(files))
			}
			if n := bound(t, dir); n > filled()/2 {
				t.Errorf("%d bytes, limit %d", n, filled()/2)
			}
			w.want(t)
			if err := errors.Join(c.Close(), end()); err != nil {
				t.Error(err)
			}
		})
	}
}

const userEnv = "DEQUANTFS_TEST_CACHE_USER"

// Permission errors stop the cache, not its reader. Root has none, so another user tries.
func TestAnUnreadableFolder(t *testing.T) {
	if dir := os.Getenv(userEnv); dir != "" {
		unreadable(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		unreadable(t, t.TempDir())
		return
	}
	dir, err := os.MkdirTemp("/tmp", "dequantfs-cache")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "test")
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.WriteFile(program, data, 0o755), os.Chown(dir, 4321, 4321))
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "-test.run=^TestAnUnreadableFolder$", "-test.v")
	c.Dir, c.Env = dir, append(os.Environ(), userEnv+"="+filepath.Join(dir, "home"))
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4321, Gid: 4321}}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAnUnreadableFolder") {
		t.Errorf("%v: %s", err, out)
	}
}

func unreadable(t *testing.T, home string) {
	dir := filepath.Join(home, "cache")
	c, w := openCache(t, dir, 0)
	filling.write(c, 0, 0)
	blocks := filepath.Join(dir, "v1")
	for _, mode := range []os.FileMode{0, 0o700} {
		if err := os.Chmod(blocks, mode); err != nil {
			t.Fatal(err)
		}
		if got := filling.readAll(t, c, 0, 0); got != (mode != 0) {
			t.Errorf("with mode %v the block is there: %v", mode, got)
		}
		filling.write(c, 1, 0) // not in the minute after the error
		if filling.readAll(t, c, 1, 0) {
			t.Errorf("with mode %v a block is kept", mode)
		}
		w.want(t, "blocks cannot be read: ")
		if !strings.Contains(w.all()[0], "permission denied") {
			t.Errorf("warnings %q", w.all())
		}
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a folder without permissions: error %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/", "/usr"} { // of root, who is trusted, but not for this user
		c, w := openCache(t, dir, 0)
		filling.write(c, 0, 0)
		if filling.readAll(t, c, 0, 0) || len(w.all()) != 1 {
			t.Errorf("%s: a block is kept there; warnings %q", dir, w.all())
		}
	}
	fmt.Println("tried as user", os.Geteuid())
}
