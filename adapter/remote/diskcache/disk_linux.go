package diskcache

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// nonblock keeps the opening of a pipe from waiting for a writer.
const nonblock = unix.O_NONBLOCK

// lock takes the lock of the folder, or fails if another process has it. File systems without locks
// do not keep processes apart. Then two may remove blocks at once, which is harmless.
func (f *folder) lock() (unlock func() error, err error) {
	file, err := f.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|nonblock, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		return nil, fmt.Errorf("%w: another process makes it", errNoRoom)
	}
	return file.Close, nil
}

// space is the free bytes of a disk, and all of them.
func space(dir *os.File) (free, all int64, ok bool) {
	var s unix.Statfs_t
	err := unix.Fstatfs(int(dir.Fd()), &s)
	return int64(s.Bavail) * s.Frsize, int64(s.Blocks) * s.Frsize, err == nil && s.Blocks > 0
}
