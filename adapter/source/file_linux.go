package source

import "golang.org/x/sys/unix"

// Advise tells the system that n bytes from off will be read soon, so that it fetches
// them, or that they are not needed any more, so that it drops its copy. The bytes
// that reads give are the same either way.
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
