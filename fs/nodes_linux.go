package fs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dirNode is a directory in go-fuse's tree.
type dirNode struct {
	gofs.Inode
	fs    *FS
	node  *node
	looks *looks
	ahead *foreruns // nil: none
}

// fileNode is a file in go-fuse's tree.
type fileNode struct {
	gofs.Inode
	fs    *FS
	node  *node
	looks *looks
	ahead *foreruns // nil: none
}

var (
	_ gofs.NodeLookuper  = (*dirNode)(nil)
	_ gofs.NodeReaddirer = (*dirNode)(nil)
	_ gofs.NodeGetattrer = (*dirNode)(nil)
	_ gofs.NodeStatfser  = (*dirNode)(nil)
	_ gofs.NodeGetattrer = (*fileNode)(nil)
	_ gofs.NodeOpener    = (*fileNode)(nil)
	_ gofs.NodeReader    = (*fileNode)(nil)
	_ gofs.NodeFsyncer   = (*fileNode)(nil)
	_ gofs.NodeFsyncer   = (*dirNode)(nil)
	_ gofs.NodeStatfser  = (*fileNode)(nil)
	_ gofs.FileReleaser  = (*handle)(nil)
)

// Lookup finds a file in the directory.
func (d *dirNode) Lookup(
	ctx context.Context, name string, out *fuse.EntryOut,
) (*gofs.Inode, syscall.Errno) {
	d.fs.request()
	n := d.node.byName[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	attributes(n, d.looks, &out.Attr)
	id := gofs.StableAttr{Mode: out.Mode & syscall.S_IFMT, Ino: n.ino}
	inode := d.GetChild(name) // under the number that the kernel knows
	if inode == nil && n.content == nil {
		inode = d.NewInode(ctx, &dirNode{fs: d.fs, node: n, looks: d.looks, ahead: d.ahead}, id)
	}
	if inode == nil {
		inode = d.NewInode(ctx, &fileNode{fs: d.fs, node: n, looks: d.looks, ahead: d.ahead}, id)
	}
	if f, ok := n.content.(*file); ok && d.ahead != nil {
		d.ahead.caches.LoadOrStore(f, inode) // it may be in other directories, too
	}
	return inode, 0
}

// Readdir lists the directory.
func (d *dirNode) Readdir(context.Context) (gofs.DirStream, syscall.Errno) {
	list := make([]fuse.DirEntry, len(d.node.kids))
	for i, kid := range d.node.kids {
		list[i] = fuse.DirEntry{Name: kid.name, Ino: kid.ino, Mode: fileType(kid)}
	}
	return gofs.NewListDirStream(list), 0
}

// Getattr describes the directory.
func (d *dirNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	attributes(d.node, d.looks, &out.Attr)
	return 0
}

// Getattr describes the file.
func (n *fileNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	attributes(n.node, n.looks, &out.Attr)
	return 0
}

// Open lets the kernel keep its cached pages of the file. In a direct mount those are the pages of
// programs that have mapped it.
func (n *fileNode) Open(_ context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	h := &handle{fs: n.fs, direct: flags&syscall.O_DIRECT != 0}
	var keep uint32 = fuse.FOPEN_KEEP_CACHE
	switch c := n.node.content.(type) {
	case *control:
		var err error
		if h.snapshot, err = c.open(); err != nil {
			return nil, 0, n.fs.errno(n.node.name, err)
		}
		keep = fuse.FOPEN_DIRECT_IO // whatever size stat shows
	case *file:
		if n.fs.direct {
			h.direct = true
			keep |= fuse.FOPEN_DIRECT_IO
		}
	}
	if f, ok := n.node.content.(*file); ok && n.ahead != nil {
		n.ahead.known(f, n.EmbeddedInode())
	}
	n.fs.counters.opened.Add(1)
	n.fs.request()
	return h, keep, 0
}

// handle is an open file.
type handle struct {
	fs       *FS
	snapshot *io.SectionReader // of a control file
	direct   bool              // its reads go past the page cache
}

// Release closes it.
func (h *handle) Release(context.Context) syscall.Errno {
	h.fs.counters.opened.Add(-1)
	h.fs.request()
	return 0
}

// request records the time of a request.
func (f *FS) request() { f.counters.last.Store(time.Now().UnixNano()) }

// Read fills dest or fails, since the kernel takes a short reply for the end of the file.
func (n *fileNode) Read(
	ctx context.Context, h gofs.FileHandle, dest []byte, off int64,
) (fuse.ReadResult, syscall.Errno) {
	if h, ok := h.(*handle); ok && h.snapshot != nil {
		got, err := h.snapshot.ReadAt(dest, off)
		return fuse.ReadResultData(dest[:got]), n.fs.errno(n.node.name, err)
	}
	n.fs.counters.requests.Add(1)
	defer n.fs.request()
	got, err := n.fill(newRequest(ctx), h, dest, off)
	if errno := n.fs.errno(n.node.name, err); errno != 0 {
		return nil, errno
	}
	return fuse.ReadResultData(dest[:got]), 0
}

// fill reads dest. If it is for the page cache, the foreruns are told.
func (n *fileNode) fill(
	ctx context.Context, h gofs.FileHandle, dest []byte, off int64,
) (got int, err error) {
	f, ok := n.node.content.(*file)
	if open, _ := h.(*handle); ok && n.ahead != nil && off < f.Size() && !open.direct {
		n.ahead.begin(f, off, int64(len(dest)))
		defer func() { n.ahead.end(f, off, int64(len(dest)), int64(got)) }()
	}
	return n.node.content.ReadAtContext(ctx, dest, off)
}

// Fsync does nothing, since nothing is written. Programs that copy also call it on files that they
// have read.
func (n *fileNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Fsync does nothing.
func (d *dirNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Statfs says how large all files are together.
func (d *dirNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return d.fs.statfs(out)
}

// Statfs says how large all files are together.
func (n *fileNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.fs.statfs(out)
}

func (f *FS) statfs(out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks = uint64(f.size+4095) / 4096
	out.Files = uint64(f.files)
	return 0
}

func fileType(n *node) uint32 {
	if n.content == nil {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

// attributes fills in the attributes that stat shows.
func attributes(n *node, l *looks, out *fuse.Attr) {
	look := l.of(n)
	out.Ino, out.Nlink = n.ino, uint32(n.links())
	out.Mode = fileType(n) | look.mode
	out.Size = uint64(n.size())
	out.Blksize = 4096
	out.Blocks = (out.Size + 4095) / 4096 * 8
	out.Uid, out.Gid = l.uid, look.gid
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

// errno returns the errno for an error. It logs each cause once.
func (f *FS) errno(name string, err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case isEnd(err):
		return 0
	case errors.Is(err, context.Canceled):
		f.counters.interrupted.Add(1)
		return syscall.EINTR
	case errors.Is(err, adapter.ErrChanged), errors.Is(err, syscall.ESTALE): // also from NFS
		errno = syscall.ESTALE
	default:
		errno = syscall.EIO
	}
	f.counters.errorKind(unix.ErrnoName(errno))
	f.logOnce(slog.LevelError, "read failed", err,
		slog.String("file", name), slog.String("errno", errno.Error()))
	return errno
}
