//go:build !linux

package source

// readCached reads nothing, since the system has no such read.
func (f *localFile) readCached([]byte, int64) (int, error) { return 0, nil }

// Advise does nothing on this system.
func (f *localFile) Advise(off, n int64, dontneed bool) {}
