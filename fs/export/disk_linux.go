package export

import (
	"errors"
	iofs "io/fs"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// directAlign divides the offsets, lengths and addresses of direct writes.
const directAlign = 4096

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

// reserve allocates the room for a file. So a full disk is found before the work.
func reserve(file *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), 0, 0, size)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	}
	// With any other error, there may still be room.
	if isOneOf(err, unix.ENOSPC, unix.EDQUOT, unix.EFBIG) {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}

// tryLock locks a file until it is closed. It does nothing on file systems without locks.
func tryLock(file *os.File) error {
	return lock(file, unix.LOCK_EX|unix.LOCK_NB)
}

// lockFile waits for the lock of a file.
func lockFile(file *os.File) error {
	return lock(file, unix.LOCK_EX)
}

func lock(file *os.File, how int) error {
	err := unix.Flock(int(file.Fd()), how)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(file.Fd()), how)
	}
	if isOneOf(err, unix.EOPNOTSUPP, unix.ENOLCK, unix.ENOSYS) {
		return nil
	}
	return os.NewSyscallError("flock", err)
}

// freeSpace returns the bytes that can be written below dir, if that is known.
func freeSpace(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return 0, false
	}
	return int64(s.Bavail) * s.Frsize, true
}

// allocated returns the bytes that a file takes on disk.
func allocated(info iofs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return 0
}

// syncDir brings the names in a directory to disk. Many file systems cannot do that, and return
// different errors: these are ignored.
func syncDir(dir *os.File) error {
	err := dir.Sync()
	if isOneOf(err, unix.EIO, unix.ENOSPC, unix.EDQUOT) {
		return err
	}
	return nil
}

// syncFile brings a file to disk, where the file system can do that.
func syncFile(file *os.File) error {
	err := file.Sync()
	if isOneOf(err, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS) {
		return nil
	}
	return err
}

// isOneOf reports whether an error is one of these.
func isOneOf(err error, errnos ...syscall.Errno) bool {
	return slices.ContainsFunc(errnos, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
