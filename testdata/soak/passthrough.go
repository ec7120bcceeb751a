//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// passthrough shows a folder at another place. Reads of one of its files can fail or not answer.
type passthrough struct {
	server *fuse.Server
	at     string

	mu     sync.Mutex
	name   string        // of that file; "": all are well
	hold   chan struct{} // what its reads wait for; nil: they fail
	misses int
}

// newPassthrough shows dir at another place.
func newPassthrough(dir, at string) (*passthrough, error) {
	if err := os.MkdirAll(at, 0o777); err != nil {
		return nil, err
	}
	p := &passthrough{at: at}
	data := &gofs.LoopbackRoot{Path: dir}
	root := &passNode{&gofs.LoopbackNode{RootData: data}, p}
	data.RootNode = root
	var err error
	p.server, err = gofs.Mount(at, root, &gofs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, DisableSplice: true, FsName: "passthrough"}})
	return p, err
}

// close takes it away.
func (p *passthrough) close() {
	_ = syscall.Unmount(p.at, syscall.MNT_DETACH) // a killed process may still have it open
	p.server.Wait()
}

// stall lets reads of a file wait until the result is called.
func (p *passthrough) stall(name string) func() {
	hold := make(chan struct{})
	p.worsen(name, hold)
	return func() { p.worsen("", nil); close(hold) }
}

// fail lets reads of a file fail until the result is called.
func (p *passthrough) fail(name string) func() {
	p.worsen(name, nil)
	return func() { p.worsen("", nil) }
}

func (p *passthrough) worsen(name string, hold chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name, p.hold = name, hold
}

// met returns how many reads have come to a file that is not well.
func (p *passthrough) met() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.misses
}

// meet lets a read of a file wait or fail.
func (p *passthrough) meet(ctx context.Context, name string) syscall.Errno {
	p.mu.Lock()
	bad, hold := name == p.name, p.hold
	if bad {
		p.misses++
	}
	p.mu.Unlock()
	if !bad {
		return 0
	}
	if hold == nil {
		return syscall.EIO
	}
	select {
	case <-hold:
		return 0
	case <-ctx.Done():
		return syscall.EINTR
	}
}

// passNode is a file or the folder.
type passNode struct {
	*gofs.LoopbackNode
	through *passthrough
}

// WrapChild passes on the files of the folder.
func (n *passNode) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &passNode{ops.(*gofs.LoopbackNode), n.through}
}

// Open makes every read reach the handle.
func (n *passNode) Open(ctx context.Context, flags uint32) (
	gofs.FileHandle, uint32, syscall.Errno,
) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	name := filepath.Base(n.Path(n.Root()))
	return &passHandle{h, n.through, name}, fuse.FOPEN_DIRECT_IO, 0
}

// passHandle is an open file.
type passHandle struct {
	file    gofs.FileHandle
	through *passthrough
	name    string
}

// Read reads the file, if it is well.
func (h *passHandle) Read(ctx context.Context, dest []byte, off int64) (
	fuse.ReadResult, syscall.Errno,
) {
	if errno := h.through.meet(ctx, h.name); errno != 0 {
		return nil, errno
	}
	return h.file.(gofs.FileReader).Read(ctx, dest, off)
}

// Release closes the file.
func (h *passHandle) Release(ctx context.Context) syscall.Errno {
	return h.file.(gofs.FileReleaser).Release(ctx)
}
