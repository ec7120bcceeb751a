//go:build !linux

package fs

import (
	"context"
	"errors"
)

// Mount is a live mount.
type Mount struct{}

// Mount mounts the tree, where there is FUSE for Linux; elsewhere it is an error.
func (f *FS) Mount(mountpoint string, o MountOptions) (*Mount, error) {
	return nil, errors.ErrUnsupported
}

// LockedOut says which other users cannot read what of the mount.
func (m *Mount) LockedOut() []string { return nil }

// Wait returns when the mount is gone.
func (m *Mount) Wait() error { return nil }

// Unmount unmounts; lazy detaches at once.
func (m *Mount) Unmount(lazy bool) error { return errors.ErrUnsupported }

// Shutdown unmounts, lazily if need be.
func (m *Mount) Shutdown(ctx context.Context) error { return errors.ErrUnsupported }

// Heap is what the garbage collector may manage.
func (m *Mount) Heap() int64 { return 0 }
