//go:build !linux

package source

// Advise does nothing here.
func (f *localFile) Advise(off, n int64, dontneed bool) {}
