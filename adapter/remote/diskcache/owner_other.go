//go:build !unix

package diskcache

import "io/fs"

// owner is not known.
func owner(fs.FileInfo) (uid int, ok bool) { return 0, false }
