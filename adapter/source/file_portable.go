//go:build !linux

package source

// mayStall returns true, since the file system is not known.
func (f *localFile) mayStall() bool { return true }

// Advise does nothing on this system.
func (f *localFile) Advise(off, n int64, dontneed bool) {}
