package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// memoryName is the name of the file of memory.
const memoryName = "memory"

// mountMemory mounts one file of size bytes that cost nothing to produce. With the options of
// fs.Mount it shows the highest speed of FUSE on this machine.
func mountMemory(mountpoint string, size int64) (*fuse.Server, error) {
	root := &memoryDir{file: &memoryFile{size: size, data: make([]byte, memoryBytes+1<<20)}}
	for i := range root.file.data {
		root.file.data[i] = byte(i>>12 ^ i)
	}
	const request, readAhead = 1 << 20, 16 << 20
	hour := time.Hour
	background := int(fs.RequestMemory() / request)
	server, err := gofs.Mount(mountpoint, root, &gofs.Options{
		EntryTimeout: &hour, AttrTimeout: &hour, NegativeTimeout: &hour,
		MountOptions: fuse.MountOptions{
			Options:       []string{"ro", "noexec"},
			MaxBackground: background, CongestionThreshold: background, MaxWrite: request,
			FsName: "memory", Name: "dequantfs",
			DisableXAttrs: true, DisableSplice: true, IgnoreSecurityLabels: true,
			ExtraCapabilities: fuse.CAP_ASYNC_DIO, DirectMount: true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	if m, found, _ := mounts.Top(mountpoint); found { // without permission reading is slower
		knob := "/sys/class/bdi/" + m.Device + "/read_ahead_kb"
		_ = os.WriteFile(knob, []byte(strconv.Itoa(readAhead>>10)), 0)
	}
	return server, nil
}

// memoryBytes are the bytes of the file, repeated. Like results, they do not fit into a processor's
// caches.
const memoryBytes = 256 << 20

// memoryDir is the directory with the file.
type memoryDir struct {
	gofs.Inode
	file *memoryFile
}

// memoryFile is the file.
type memoryFile struct {
	gofs.Inode
	size int64
	data []byte
}

var (
	_ gofs.NodeOnAdder   = (*memoryDir)(nil)
	_ gofs.NodeGetattrer = (*memoryFile)(nil)
	_ gofs.NodeOpener    = (*memoryFile)(nil)
	_ gofs.NodeReader    = (*memoryFile)(nil)
)

// OnAdd adds the file to the directory.
func (d *memoryDir) OnAdd(ctx context.Context) {
	id := gofs.StableAttr{Mode: syscall.S_IFREG}
	d.AddChild(memoryName, d.NewPersistentInode(ctx, d.file, id), true)
}

// Getattr returns the size of the file.
func (m *memoryFile) Getattr(
	_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut,
) syscall.Errno {
	out.Mode, out.Nlink, out.Size = syscall.S_IFREG|0o444, 1, uint64(m.size)
	out.SetTimeout(time.Hour)
	return 0
}

// Open lets the kernel keep its cached pages.
func (m *memoryFile) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read returns memory without touching it.
func (m *memoryFile) Read(
	_ context.Context, _ gofs.FileHandle, dest []byte, off int64,
) (fuse.ReadResult, syscall.Errno) {
	n := max(min(int64(len(dest)), m.size-off), 0)
	at := off % memoryBytes
	return fuse.ReadResultData(m.data[at : at+n]), 0
}
