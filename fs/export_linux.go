package fs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// directAlign is what offsets, lengths and addresses of direct writes are multiples of. Some
// disks are content with 512.
const directAlign = 4096

// openForWriting opens a file past the page cache where that works: an export is as large as the
// disk and would otherwise push everything else out of memory.
func openForWriting(path string) (file *os.File, direct bool, err error) {
	file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_DIRECT, 0o666)
	if err == nil {
		return file, true, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, false, err
	}
	file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
	return file, false, err
}

// setDirect switches direct writes on or off.
func setDirect(file *os.File, on bool) error {
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETFL, flags)
	return os.NewSyscallError("fcntl", err)
}

// reserve allocates the room for a file, so that a full disk shows before the work.
func reserve(file *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), 0, 0, size)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return os.NewSyscallError("fallocate", err)
}

// tryLock locks a file until it is closed. File systems without locks are taken as they are.
func tryLock(file *os.File) error {
	return lock(file, unix.LOCK_EX|unix.LOCK_NB)
}

// lockFile waits for the lock of an existing file.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(file, unix.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

func lock(file *os.File, how int) error {
	err := unix.Flock(int(file.Fd()), how)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(file.Fd()), how)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return os.NewSyscallError("flock", err)
}

// freeSpace is what may be written below dir.
func freeSpace(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return 0, false
	}
	return int64(s.Bavail) * s.Frsize, true
}

// allocated is the room that a file takes on disk; 0 if there is none.
func allocated(path string) int64 {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return 0
	}
	return s.Blocks * 512
}

// syncDir brings a directory's names to disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}
