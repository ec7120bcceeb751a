package fs

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"golang.org/x/sys/unix"
)

func init() { children["sync"] = syncAll }

// syncAll does to files and folders what programs do that copy them, besides reading.
func syncAll(paths []string) error {
	var errs []error
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		calls := map[string]error{"fsync": unix.Fsync(fd), "fdatasync": unix.Fdatasync(fd),
			"syncfs": unix.Syncfs(fd)}
		if m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err == nil {
			calls["msync"] = errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
			const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE |
				unix.SYNC_FILE_RANGE_WAIT_AFTER
			calls["sync_file_range"] = unix.SyncFileRange(fd, 0, 4096, all)
			_, calls["SEEK_DATA"] = unix.Seek(fd, 0, unix.SEEK_DATA)
			_, calls["SEEK_HOLE"] = unix.Seek(fd, 0, unix.SEEK_HOLE)
		}
		for call, err := range calls {
			if err != nil {
				errs = append(errs, fmt.Errorf("%s of %s: %w", call, filepath.Base(path), err))
			}
		}
	}
	return errors.Join(errs...)
}

func TestSyncingHasNothingToDo(t *testing.T) {
	f := openViews(t, writeGolden(t), Options{}, layout("", "hf", safetensors.BF16))
	_, dir := mountFS(t, f, MountOptions{})
	c, _ := start(t, "sync", dir, filepath.Join(dir, singleName), filepath.Join(dir, "config.json"),
		filepath.Join(dir, ".dequantfs"), filepath.Join(dir, ".dequantfs", "stats.json"))
	if err := c.Run(); err != nil {
		t.Error(err)
	}
}
