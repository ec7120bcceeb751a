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
	if errors.Is(flock(file), unix.EWOULDBLOCK) {
		file.Close()
		return nil, fmt.Errorf("%w: another process makes it", errNoRoom)
	}
	return file.Close, nil
}

// flock locks a file until it is closed, or fails if another process has locked it.
func flock(file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// hold locks a temporary file, so others know that its process is alive. It reports whether the
// file is still there.
func hold(file *os.File) bool {
	if errors.Is(flock(file), unix.EWOULDBLOCK) {
		return false
	}
	var s unix.Stat_t
	err := unix.Fstat(int(file.Fd()), &s)
	return err != nil || s.Nlink > 0
}

// abandoned reports whether no process holds a temporary file.
func (f *folder) abandoned(name string) bool {
	file, err := f.root.OpenFile(name, os.O_RDWR|nonblock, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return flock(file) == nil
}

// space is the free bytes of a disk, and all of them.
func space(dir *os.File) (free, all int64, ok bool) {
	var s unix.Statfs_t
	err := unix.Fstatfs(int(dir.Fd()), &s)
	return int64(s.Bavail) * s.Frsize, int64(s.Blocks) * s.Frsize, err == nil && s.Blocks > 0
}
