package export

import (
	"errors"
	iofs "io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// directAlign is what offsets, lengths and addresses of direct writes are multiples of. Some
// disks are content with 512.
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

// reserve allocates the room for a file, so that a full disk shows before the work.
func reserve(file *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), 0, 0, size)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	}
	// Whatever else keeps it from reserving, the room may be there.
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}

// tryLock locks a file until it is closed. File systems without locks are taken as they are.
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

// allocated is the room that a file takes on disk.
func allocated(info iofs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return 0
}

// syncDir brings a directory's names to disk. Many file systems cannot do that, and say so in many
// ways.
func syncDir(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

// syncFile brings a file to disk, where the file system can do that.
func syncFile(file *os.File) error {
	err := file.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
