package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// memoryName is the name of the file of memory.
const memoryName = "memory"

// mountMemory mounts files that cost nothing to produce. With the options of fs.Mount they show the
// highest speed of FUSE on this machine.
func mountMemory(mountpoint string, files []*memoryFile) (*fuse.Server, error) {
	data := make([]byte, memoryBytes+1<<20)
	for i := range data {
		data[i] = byte(i>>12 ^ i)
	}
	for _, f := range files {
		f.data = data
	}
	root := &memoryDir{files: files}
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

// memoryFiles returns the files to mount: one of so many bytes, or those of a folder.
func memoryFiles(what string) ([]*memoryFile, error) {
	if n, err := strconv.ParseInt(what, 10, 64); err == nil {
		return []*memoryFile{{name: memoryName, size: n}}, nil
	}
	list, err := os.ReadDir(what)
	if err != nil {
		return nil, err
	}
	var files []*memoryFile
	for _, entry := range list {
		if !entry.Type().IsRegular() {
			continue
		}
		f, err := likeFile(filepath.Join(what, entry.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// likeFile returns a file with the name and size of another one. A shard has the same header, so
// that loaders read it. All other files have the same bytes.
func likeFile(path string) (*memoryFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	n := info.Size()
	if filepath.Ext(path) == ".safetensors" {
		h, err := safetensors.ReadHeader(f, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		n = h.DataOffset
	}
	m := &memoryFile{name: info.Name(), size: info.Size(), head: make([]byte, n)}
	if _, err := f.ReadAt(m.head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return m, nil
}

// memoryBytes are the bytes behind the heads of files, repeated. Like results, they do not fit into
// a processor's caches.
const memoryBytes = 256 << 20

// memoryDir is the directory with the files.
type memoryDir struct {
	gofs.Inode
	files []*memoryFile
}

// memoryFile is a file of memory.
type memoryFile struct {
	gofs.Inode
	name string
	size int64
	head []byte // its first bytes
	data []byte // bytes of any place behind them
}

var (
	_ gofs.NodeOnAdder   = (*memoryDir)(nil)
	_ gofs.NodeGetattrer = (*memoryFile)(nil)
	_ gofs.NodeOpener    = (*memoryFile)(nil)
	_ gofs.NodeReader    = (*memoryFile)(nil)
)

// OnAdd adds the files to the directory.
func (d *memoryDir) OnAdd(ctx context.Context) {
	id := gofs.StableAttr{Mode: syscall.S_IFREG}
	for _, f := range d.files {
		d.AddChild(f.name, d.NewPersistentInode(ctx, f, id), true)
	}
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

// Read returns memory without touching it, except in the head.
func (m *memoryFile) Read(
	_ context.Context, _ gofs.FileHandle, dest []byte, off int64,
) (fuse.ReadResult, syscall.Errno) {
	n := max(min(int64(len(dest)), m.size-off), 0)
	at := off % memoryBytes
	rest := m.data[at : at+n]
	if off >= int64(len(m.head)) {
		return fuse.ReadResultData(rest), 0
	}
	head := copy(dest, m.head[off:])
	copy(dest[head:n], rest[min(int64(head), n):])
	return fuse.ReadResultData(dest[:n]), 0
}
