package source

import "golang.org/x/sys/unix"

// mayStall reports whether a read may wait for a server.
func (f *localFile) mayStall() bool { return f.proof.system.told }

// Advise tells the system that n bytes from off will be read soon, so it may fetch them. With
// dontneed it tells that they are not needed any more, so it may drop its copy. Reads return the
// same bytes either way.
func (f *localFile) Advise(off, n int64, dontneed bool) {
	advice := unix.FADV_WILLNEED
	if dontneed {
		advice = unix.FADV_DONTNEED
	}
	f.use.RLock()
	defer f.use.RUnlock()
	if !f.closed {
		_ = unix.Fadvise(int(f.fd), off, n, advice) // it is only advice
	}
}
