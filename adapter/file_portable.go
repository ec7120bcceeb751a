//go:build !linux

package adapter

// Advise does nothing here.
func (f *sourceFile) Advise(off, n int64, dontneed bool) {}
