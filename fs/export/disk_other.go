//go:build !linux

package export

import (
	iofs "io/fs"
	"os"
)

const directAlign = 1

func setDirect(*os.File, bool) error { return nil }
func reserve(*os.File, int64) error  { return nil }
func tryLock(*os.File) error         { return nil }
func lockFile(*os.File) error        { return nil }
func allocated(iofs.FileInfo) int64  { return 0 }
func freeSpace(string) (int64, bool) { return 0, false }
func syncDir(*os.File) error         { return nil }
func syncFile(file *os.File) error   { return file.Sync() }
