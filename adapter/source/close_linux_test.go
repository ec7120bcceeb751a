package source_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// asking is a file whose server counts how often it is asked for its file system.
type asking struct {
	gofs.MemRegularFile
	statfs atomic.Int64
}

func (n *asking) Statfs(context.Context, *fuse.StatfsOut) syscall.Errno {
	n.statfs.Add(1)
	return 0
}

// A server that stopped answering must not keep a file of a closed store from being closed.
func TestClosingAFileOfAClosedStoreAsksNoServer(t *testing.T) {
	dir := t.TempDir()
	n := &asking{MemRegularFile: gofs.MemRegularFile{Data: make([]byte, 100)}}
	root := &gofs.Inode{}
	server, err := gofs.Mount(dir, root, &gofs.Options{
		OnAdd: func(ctx context.Context) {
			attr := gofs.StableAttr{Mode: syscall.S_IFREG}
			root.AddChild("file", root.NewPersistentInode(ctx, n, attr), true)
		},
	})
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ","), "fuse") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	for _, storeFirst := range []bool{false, true} {
		s, _, err := source.Open(dir, source.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Open(t.Context(), "file")
		if err != nil {
			t.Fatal(err)
		}
		before := n.statfs.Load()
		if storeFirst {
			err = s.Close()
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if asked := n.statfs.Load() > before; asked == storeFirst {
			t.Errorf("store closed first: %v, but the server was asked: %v", storeFirst, asked)
		}
		l := new(source.Lookup)
		if a := f.Access(l); storeFirst && (a.Others(4321, 4322) || a.Members(4321, 0)) {
			t.Error("other users are admitted to a file that was not looked at")
		}
		l.Close()
		if !storeFirst {
			err = s.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
}
