//go:build !linux

package fs

import (
	"context"
	"errors"
)

// Mount is a live mount.
type Mount struct{}

// Mount fails, since mounting needs FUSE for Linux.
func (f *FS) Mount(mountpoint string, o MountOptions) (*Mount, error) {
	return nil, errors.ErrUnsupported
}

// LockedOut describes which other users cannot read which files of the mount.
func (m *Mount) LockedOut() []string { return nil }

// Wait returns when the mount is gone.
func (m *Mount) Wait() error { return nil }

// Unmount unmounts. With lazy it detaches the mount at once, even if it is in use.
func (m *Mount) Unmount(lazy bool) error { return errors.ErrUnsupported }

// Shutdown unmounts. It detaches the mount if files stay open.
func (m *Mount) Shutdown(ctx context.Context) error { return errors.ErrUnsupported }

// Maps reports whether programs can map the shards of the mount as shared.
func (m *Mount) Maps() bool { return false }

// Heap returns the heap size that keeps the whole process within its memory.
func (m *Mount) Heap() int64 { return 0 }

// NetworkMemory returns the part of it for a source over a network.
func (m *Mount) NetworkMemory() int64 { return 0 }

// TryMount fails, since mounting needs FUSE for Linux.
func TryMount(mountpoint string, allowOther bool) error { return errors.ErrUnsupported }
