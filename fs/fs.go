// Package fs is the virtual filesystem over planned checkpoints.
package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"log/slog"

	"github.com/dequantfs/dequantfs/adapter"
)

// View is one plan and where it stands in the tree.
type View struct {
	Dir       string // "" for the root, else "native", "hf", "rank-0-of-8" …
	Plan      *adapter.Plan
	ShardSize int64 // largest virtual file; 0: the layout's own grouping
}

// Options of a filesystem. Useful zero values.
type Options struct {
	CacheSize  int64 // bytes; 0: the default (see DefaultCacheSize); negative: nothing is kept
	Workers    int   // goroutines that one read may use; 0: GOMAXPROCS
	DropSource bool  // drop the source's pages behind reading
	Logger     *slog.Logger
}

// FS is the tree. It implements io/fs.FS, ReadDirFS and StatFS; its files implement io.ReaderAt.
type FS struct{}

// New lays the views out. Everything that can fail without reading tensor data fails here.
func New(c *adapter.Checkpoint, views []View, o Options) (*FS, error) {
	return nil, errors.ErrUnsupported
}

// Open opens a file or directory by its slash-separated path.
func (f *FS) Open(name string) (iofs.File, error) { return nil, errors.ErrUnsupported }

// ReaderAt opens a file for reads that can be cancelled.
func (f *FS) ReaderAt(name string) (ReaderAtContext, error) { return nil, errors.ErrUnsupported }

// ReaderAtContext reads like io.ReaderAt.
type ReaderAtContext interface {
	io.ReaderAt
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
	Size() int64
}

// Close stops prefetching and waits for what runs.
func (f *FS) Close() error { return nil }

// MountOptions are how a filesystem is mounted. Useful zero values.
type MountOptions struct {
	ReadAhead  int64 // bytes; 0: 16 MiB
	AllowOther bool
	UID, GID   *uint32
	FsName     string
	Debug      bool
}

// Mount is a live mount.
type Mount struct{}

// Mount mounts the tree; it returns once the mountpoint can be read.
func (f *FS) Mount(mountpoint string, o MountOptions) (*Mount, error) {
	return nil, errors.ErrUnsupported
}

// Wait returns when the mount is gone.
func (m *Mount) Wait() error { return nil }

// Unmount unmounts; lazy detaches at once.
func (m *Mount) Unmount(lazy bool) error { return nil }
