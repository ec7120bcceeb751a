package export

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// weakness has the errors of calls that a file system does not implement, or 0 for calls that it
// does. Object stores behind FUSE and some network file systems are weak.
type weakness struct {
	optional syscall.Errno // chmod, chown, utimens, truncate, link, fallocate, fsync of a directory
	rename   syscall.Errno
}

// weakNode is a file or directory of a weak file system.
type weakNode struct {
	*gofs.LoopbackNode
	weakness
}

// WrapChild makes weak nodes of the files below.
func (n *weakNode) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &weakNode{ops.(*gofs.LoopbackNode), n.weakness}
}

// Setattr fails on a weak file system.
func (n *weakNode) Setattr(
	ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut,
) syscall.Errno {
	if n.optional != 0 {
		return n.optional
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// Link fails on a weak file system.
func (n *weakNode) Link(
	ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut,
) (*gofs.Inode, syscall.Errno) {
	if n.optional != 0 {
		return nil, n.optional
	}
	return n.LoopbackNode.Link(ctx, target.(*weakNode).LoopbackNode, name, out)
}

// Allocate fails on a weak file system.
func (n *weakNode) Allocate(
	ctx context.Context, f gofs.FileHandle, off, size uint64, mode uint32,
) syscall.Errno {
	if n.optional != 0 {
		return n.optional
	}
	return f.(gofs.FileAllocater).Allocate(ctx, off, size, mode)
}

// Fsync fails on a weak file system for directories.
func (n *weakNode) Fsync(ctx context.Context, f gofs.FileHandle, flags uint32) syscall.Errno {
	if n.optional != 0 && n.IsDir() {
		return n.optional
	}
	if s, ok := f.(gofs.FileFsyncer); ok {
		return s.Fsync(ctx, flags)
	}
	return 0
}

// Rename fails on a file system without it.
func (n *weakNode) Rename(
	ctx context.Context, name string, parent gofs.InodeEmbedder, newName string, flags uint32,
) syscall.Errno {
	if n.rename != 0 {
		return n.rename
	}
	return n.LoopbackNode.Rename(ctx, name, parent.(*weakNode).LoopbackNode, newName, flags)
}

// mountWeak mounts a weak file system that shows a directory.
func mountWeak(t *testing.T, dir string, w weakness) string {
	t.Helper()
	needFUSE(t)
	data := &gofs.LoopbackRoot{Path: dir}
	root := &weakNode{&gofs.LoopbackNode{RootData: data}, w}
	data.RootNode = root
	at := t.TempDir()
	options := fuse.MountOptions{DirectMount: true, FsName: "weak"}
	server, err := gofs.Mount(at, root, &gofs.Options{MountOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return at
}

func TestExportOntoAWeakFileSystem(t *testing.T) {
	tree := newFakeTree(t)
	want := tree.exported(t)
	for _, errno := range []syscall.Errno{
		0, syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS, syscall.EINVAL,
	} {
		disk := tempInMemory(t)
		at := mountWeak(t, disk, weakness{optional: errno})
		if errno != 0 {
			if err := os.Chmod(at, 0o700); err == nil {
				t.Errorf("%v: chmod went well", errno)
			}
		}
		dir := filepath.Join(at, "export")
		if _, err := tree.export(context.Background(), dir, Options{}); err != nil {
			t.Errorf("%v: %v", errno, err)
			continue
		}
		wantSame(t, contents(t, filepath.Join(disk, "export")), want)
		found, err := Verify(context.Background(), dir, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantDifferences(t, found, nil)
	}
}

func TestAFileSystemThatCannotRenameIsFoundOutBeforeTheWork(t *testing.T) {
	tree := newTinyTree(t)
	begun := begunUntil(t, tree, t.TempDir(), "hf/model-00002-of-00002.safetensors")
	for _, errno := range []syscall.Errno{
		syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS, syscall.EXDEV, syscall.EINVAL, syscall.EIO,
	} {
		for name, start := range map[string]map[string]string{"new": nil, "begun": begun} {
			disk := tempInMemory(t)
			restore(t, disk, start)
			before := contents(t, disk)
			at := mountWeak(t, disk, weakness{rename: errno})
			written := 0
			_, err := tree.export(context.Background(), at, Options{Progress: func(e Event) {
				if e.Kind == Written {
					written++
				}
			}})
			where := at + ": files cannot be renamed there: "
			if !mentions(err, where, "export to a local disk") {
				t.Errorf("%v, %s: error %v", errno, name, err)
			}
			if written > 0 {
				t.Errorf("%v, %s: %d pieces were written", errno, name, written)
			}
			wantSame(t, contents(t, disk), before)
			if left, _ := os.ReadDir(disk); start == nil && len(left) > 0 {
				t.Errorf("%v, %s: %v was left behind", errno, name, left)
			}
		}
	}
}
