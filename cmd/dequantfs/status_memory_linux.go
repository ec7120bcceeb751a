package main

import (
	"context"

	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/fs/pagecache"
)

// memoryOf returns how much of a mount is in memory, or nil if the kernel does not tell.
func memoryOf(ctx context.Context, mountpoint string) *memoryState {
	if m, found, err := mounts.Top(mountpoint); err != nil || !found || m.Type != mounts.Type {
		return nil // it is in another mount namespace
	}
	v := &wanted{all: true, seen: map[fileID]bool{}}
	files, err := v.list(ctx, []string{mountpoint})
	if err != nil {
		return nil
	}
	m := &memoryState{}
	for _, f := range files {
		m.Of += f.Size()
	}
	if m.Bytes, m.Exact, err = pagecache.Estimate(ctx, files); err != nil {
		return nil
	}
	return m
}
