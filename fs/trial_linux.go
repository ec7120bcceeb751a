package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// trialName and trialText are the only file of a trial.
const (
	trialName = "trial"
	trialText = "this is mounted\n"
)

// TryMount mounts a tree with one small file at a mountpoint, reads it, and unmounts. It returns
// the reason why this process cannot mount there.
func TryMount(mountpoint string, allowOther bool) (err error) {
	mountpoint, err = ResolveMountpoint(mountpoint)
	if err != nil {
		return err
	}
	const maxRead = 128 << 10
	fd, err := mounts.FUSE(mountpoint, mounts.FUSEOptions{
		Source: "dequantfs", MaxRead: maxRead, AllowOther: allowOther,
	})
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	defer func() {
		gone := mounts.Unmount(context.Background(), mountpoint, false)
		if gone != nil {
			gone = detach(mountpoint)
		}
		if gone != nil {
			gone = &mounts.StaysError{Mountpoint: mountpoint, Err: gone}
		}
		err = errors.Join(err, gone)
	}()
	quiet := log.New(io.Discard, "", 0)
	_, err = gofs.Mount(fmt.Sprintf("/dev/fd/%d", fd), new(trialNode), &gofs.Options{
		Logger: quiet,
		MountOptions: fuse.MountOptions{
			MaxWrite: maxRead, DisableXAttrs: true, DisableSplice: true, Logger: quiet,
		},
	})
	if err == nil {
		err = firstPoll(mountpoint)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	text, err := os.ReadFile(filepath.Join(mountpoint, trialName))
	if err == nil && string(text) != trialText {
		err = fmt.Errorf("%s: a mounted file reads %q", mountpoint, text)
	}
	return err
}

// trialNode is the root of a trial.
type trialNode struct{ gofs.Inode }

// OnAdd makes the file.
func (n *trialNode) OnAdd(ctx context.Context) {
	file := &gofs.MemRegularFile{Data: []byte(trialText), Attr: fuse.Attr{Mode: 0o444}}
	child := n.NewPersistentInode(ctx, file, gofs.StableAttr{Mode: syscall.S_IFREG})
	n.AddChild(trialName, child, true)
}
