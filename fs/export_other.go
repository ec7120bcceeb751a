//go:build !linux

package fs

import "os"

const directAlign = 1

func openForWriting(path string) (file *os.File, direct bool, err error) {
	file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
	return file, false, err
}

func setDirect(*os.File, bool) error { return nil }
func reserve(*os.File, int64) error  { return nil }
func tryLock(*os.File) error         { return nil }
func allocated(string) int64         { return 0 }
func freeSpace(string) (int64, bool) { return 0, false }
func syncDir(string) error           { return nil }

func lockFile(path string) (unlock func(), err error) {
	_, err = os.Stat(path)
	return func() {}, err
}
