//go:build !linux

package diskcache

import "os"

const nonblock = 0

// lock does not keep processes apart. Two may remove blocks at once, which is harmless.
func (f *folder) lock() (unlock func() error, err error) {
	return func() error { return nil }, nil
}

// hold does nothing.
func hold(*os.File) bool { return true }

// abandoned is not known.
func (f *folder) abandoned(string) bool { return false }

// space is not known.
func space(*os.File) (free, all int64, ok bool) { return 0, 0, false }
