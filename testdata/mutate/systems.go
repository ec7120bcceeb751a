// Package mutate makes file systems for tests and changes files on them in every way that the
// kernel has.
//
// [System.Mount] makes one of [Systems]. [Start] starts a child process that changes a file there.
// It is a child, since a process that stores to a mapped file of its own FUSE mount can deadlock.
// The child is the test binary itself, which calls [Serve] when [IsChild] says so.
package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// System is a file system to make.
type System struct {
	Name  string
	Needs string // the program that makes it, if it needs one
	mount func(dir string) (root string, end func() error, err error)
}

// Systems are all that can be made. An overlay is above ext4, unless it says so.
var Systems = []System{
	{"ext4", "mkfs.ext4", onExt4},
	{"xfs", "mkfs.xfs", func(dir string) (string, func() error, error) {
		return onLoop(dir, 320<<20, "mkfs.xfs", "-q")
	}},
	{"btrfs", "mkfs.btrfs", func(dir string) (string, func() error, error) {
		return onLoop(dir, 256<<20, "mkfs.btrfs", "-q")
	}},
	{"tmpfs", "", onTmpfs},
	{"overlay", "mkfs.ext4", overlaid(onExt4, "")},
	{"volatile overlay", "mkfs.ext4", overlaid(onExt4, ",volatile")},
	{"overlay in memory", "", overlaid(onTmpfs, "")},
	{"fuse", "mkfs.ext4", onFUSE},
}

// Mount makes a file system in a directory of its own and gives the directory for files in it. If
// it cannot, err says what is missing.
func (s System) Mount(dir string) (root string, end func() error, err error) {
	if os.Getuid() != 0 {
		return "", nil, errors.New("only root can mount")
	}
	if s.Needs != "" {
		if _, err := exec.LookPath(s.Needs); err != nil {
			return "", nil, err
		}
	}
	return s.mount(dir)
}

// onLoop mounts a new file system in a file.
func onLoop(dir string, size int64, mkfs string, args ...string) (string, func() error, error) {
	image, root := filepath.Join(dir, "image"), filepath.Join(dir, "root")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close(), os.Mkdir(root, 0o755))
	}
	if err != nil {
		return "", nil, err
	}
	if out, err := exec.Command(mkfs, append(args, image)...).CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("%s: %w: %s", mkfs, err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, root).CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("mount -o loop: %w: %s", err, out)
	}
	return root, func() error { return errors.Join(unmount(root), os.Remove(image)) }, nil
}

func onExt4(dir string) (string, func() error, error) {
	return onLoop(dir, 64<<20, "mkfs.ext4", "-q", "-F")
}

// onTmpfs mounts a new file system in memory.
func onTmpfs(dir string) (string, func() error, error) {
	root := filepath.Join(dir, "root")
	err := errors.Join(os.Mkdir(root, 0o755),
		unix.Mount("none", root, "tmpfs", 0, "mode=755,size=256m"))
	return root, func() error { return unmount(root) }, err
}

// overlaid mounts an overlay above another file system.
func overlaid(below func(dir string) (string, func() error, error),
	options string) func(string) (string, func() error, error) {
	return func(dir string) (string, func() error, error) {
		base, end, err := below(dir)
		if err != nil {
			return "", nil, err
		}
		root := filepath.Join(dir, "overlay")
		lower, upper, work := filepath.Join(base, "lower"), filepath.Join(base, "upper"),
			filepath.Join(base, "work")
		for _, d := range []string{root, lower, upper, work} {
			err = errors.Join(err, os.Mkdir(d, 0o755))
		}
		if err == nil {
			err = unix.Mount("overlay", root, "overlay", 0,
				fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s%s", lower, upper, work, options))
		}
		if err != nil {
			return "", nil, errors.Join(fmt.Errorf("overlay: %w", err), end())
		}
		return root, func() error { return errors.Join(unmount(root), end()) }, nil
	}
}

// Behind returns the folder whose files a system shows: the upper layer of an overlay, or the base
// of a FUSE mount. For other systems it is root itself.
func Behind(root string) string {
	switch filepath.Base(root) {
	case "overlay":
		return filepath.Join(filepath.Dir(root), "root", "upper")
	case "fuse":
		return filepath.Join(filepath.Dir(root), "root")
	}
	return root
}

func unmount(root string) error {
	if err := unix.Unmount(root, 0); err != nil {
		return errors.Join(fmt.Errorf("unmount %s: %w", root, err),
			unix.Unmount(root, unix.MNT_DETACH))
	}
	return nil
}

// onFUSE shows an ext4 through a FUSE mount that passes on what it is asked, and whose files the
// kernel caches. A child serves it, since a process that ends while it has files of its own mount
// open cannot end.
func onFUSE(dir string) (string, func() error, error) {
	base, end, err := onExt4(dir)
	if err != nil {
		return "", nil, err
	}
	root := filepath.Join(dir, "fuse")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", nil, errors.Join(err, end())
	}
	server, err := start("relay", base, root)
	if err == nil {
		err = server.answer()
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("fuse: %w", err), end())
	}
	return root, func() error { return errors.Join(unmount(root), server.Close(), end()) }, nil
}

// relay serves a FUSE mount at root that shows base, until it is unmounted or the standard input
// ends.
func relay(base, root string) error {
	data := &gofs.LoopbackRoot{Path: base}
	node := &relayNode{&gofs.LoopbackNode{RootData: data}}
	data.RootNode = node
	server, err := gofs.Mount(root, node, &gofs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, DirectMount: true, DisableSplice: true, FsName: "relay",
		Options: []string{"default_permissions"},
	}})
	if said := json.NewEncoder(os.Stdout).Encode(text(err)); err != nil || said != nil {
		return said
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = unix.Unmount(root, unix.MNT_DETACH) // or it is unmounted already
	}()
	server.Wait()
	return nil
}

// relayNode is a file or directory of it. Its files are not handed to the kernel, so that they are
// as those of most FUSE file systems.
type relayNode struct{ *gofs.LoopbackNode }

// WrapChild makes the nodes below one like it.
func (n *relayNode) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &relayNode{ops.(*gofs.LoopbackNode)}
}

// Open opens a file.
func (n *relayNode) Open(ctx context.Context,
	flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h, mode, errno := n.LoopbackNode.Open(ctx, flags)
	return passOn(h, errno), mode, errno
}

// Create makes a file.
func (n *relayNode) Create(ctx context.Context, name string, flags, mode uint32,
	out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	i, h, kept, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return i, passOn(h, errno), kept, errno
}

// relayed is what an open file can do.
type relayed interface {
	gofs.FileReader
	gofs.FileWriter
	gofs.FileFsyncer
	gofs.FileAllocater
	gofs.FileReleaser
}

func passOn(h gofs.FileHandle, errno syscall.Errno) gofs.FileHandle {
	if errno != 0 {
		return nil
	}
	return struct{ relayed }{h.(relayed)}
}

// Leases reports whether a file is on a system where a lease covers every way to change it. There
// its owner can prove that a change was harmless.
func Leases(path string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return slices.Contains([]uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC,
		unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC}, uint32(st.Type)), err
}

// Unseen are the changes that reads do not notice, by system. There are none where a lease is held.
var Unseen = map[string]string{
	"ext4":              "exchange blocks",
	"xfs":               "exchange blocks",
	"tmpfs":             "mapped store",
	"overlay in memory": "mapped store",
	"volatile overlay":  "mapped store", // if the page was dirty at first
}

// UnseenMeanwhile are the changes that are not noticed while they happen.
var UnseenMeanwhile = map[string]string{
	"tmpfs":             "punch",
	"overlay in memory": "punch",
}
