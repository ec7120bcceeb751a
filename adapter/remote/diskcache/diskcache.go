// Package diskcache keeps blocks of remote objects in files of a local folder. Several processes
// and nodes may share the folder.
package diskcache

import (
	"errors"
	"log/slog"
)

// Options change a cache. The zero value suits most programs.
type Options struct {
	Size   int64        // bytes of all files; 0: as far as a tenth of the disk stays free
	Logger *slog.Logger // receives warnings; nil discards them
}

// Key identifies one version of an object.
type Key struct{ Origin, Object, Version string }

// Cache is a folder of blocks. It is safe for concurrent use.
type Cache struct{}

// Open opens the cache in a folder, which it makes if it is missing.
func Open(dir string, o Options) (*Cache, error) { return nil, errors.ErrUnsupported }

// Read fills p with bytes of a block of n bytes at offset off of an object, from offset at of the
// block on. It reports whether the cache has them and they are right.
func (c *Cache) Read(k Key, off, n int64, p []byte, at int64) bool { return false }

// Write keeps a block. It returns once the bytes are copied or written, so the caller may change
// them. Errors are only logged: a block that is not kept is fetched again.
func (c *Cache) Write(k Key, off int64, block []byte) {}

// Close waits for blocks that are being written.
func (c *Cache) Close() error { return nil }
