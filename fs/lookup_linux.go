package fs

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// lookUp makes the kernel look up files of a mount of this process, if they are wanted.
//
// A process that is killed ends with its last thread, and a thread that waits for the mount ends
// with the connection, which ends when the last thread closes /dev/fuse. So the thread that waits
// has descriptors of its own, without that one. It ends with this goroutine.
func lookUp(paths []string, wanted func(i int) bool) {
	onThread(func() {
		if unix.Unshare(unix.CLONE_FILES) != nil || !closeConnections() {
			return
		}
		for i, path := range paths {
			if wanted(i) {
				_, _ = os.Lstat(path) // if it fails, nothing of the file is stored
			}
		}
	})
}

// onThread calls do on a thread that ends with it. That is not the first thread of the process,
// which cannot end.
func onThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(do) // on another thread, since this one is taken
			runtime.UnlockOSThread()
			return
		}
		do()
	}()
	<-done
}

// closeConnections closes the descriptors of /dev/fuse of this thread.
func closeConnections() bool {
	const list = "/proc/thread-self/fd"
	names, err := os.ReadDir(list)
	if err != nil {
		return false
	}
	for _, n := range names {
		if to, _ := os.Readlink(filepath.Join(list, n.Name())); to != "/dev/fuse" {
			continue
		}
		fd, err := strconv.Atoi(n.Name())
		if err != nil || unix.Close(fd) != nil {
			return false
		}
	}
	return true
}
