package source

import "golang.org/x/sys/unix"

// readCached reads the part that can be read without waiting. It reads nothing if the file may be
// on a server, since a server has to be asked for the identity of the file. An error is left to the
// next read.
func (f *localFile) readCached(p []byte, off int64) (int, error) {
	f.use.RLock()
	defer f.use.RUnlock()
	if f.closed || f.proof.system.told {
		return 0, nil
	}
	n, err := unix.Preadv2(int(f.fd), [][]byte{p}, off, unix.RWF_NOWAIT)
	if err != nil || n <= 0 {
		return 0, nil
	}
	if err := f.check(); err != nil {
		return 0, err
	}
	return n, nil
}

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
