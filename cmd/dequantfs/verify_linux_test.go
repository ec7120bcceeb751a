package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// silent is a directory of a file system that answers no read before its reader is killed. It
// answers then, since the kernel lets no process end that still waits for a read.
type silent struct {
	*gofs.LoopbackNode
	asked *atomic.Int64
}

// WrapChild makes the nodes below one like it.
func (n *silent) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &silent{ops.(*gofs.LoopbackNode), n.asked}
}

// Open gives a file whose reads wait, unless it is a manifest.
func (n *silent) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 || strings.HasSuffix(n.Path(nil), "manifest.json") {
		return h, f, errno
	}
	return &silentFile{h, n}, fuse.FOPEN_DIRECT_IO, 0
}

type silentFile struct {
	gofs.FileHandle
	node *silent
}

// Read answers nothing.
func (f *silentFile) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult,
	syscall.Errno) {
	f.node.asked.Add(1)
	<-ctx.Done()
	return nil, syscall.EINTR
}

func TestVerifyEndsAlthoughAFileSystemDoesNotAnswer(t *testing.T) {
	requireFUSE(t)
	t.Parallel() // it takes the seconds that are waited for
	s := newSession(t)
	export := filepath.Join(s.dir, "export")
	s.run("export", s.source, export, "--layout", "hf")
	root := mountSilent(t, s.mnt, export)
	c := s.command("verify", s.mnt)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	root.wait(t)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t.Fatalf, func() error {
		select {
		case err := <-ended:
			ended <- err
			return nil
		default:
			return errors.New("it still runs")
		}
	})
	var exit *exec.ExitError
	err := <-ended
	if !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.Contains(stderr.String(),
		"interrupted") {
		t.Errorf("%v: %s", err, &stderr)
	}
}

// TestAnInterruptedMountLeavesNothing interrupts a mount in the background whose source does not
// answer, so that it never gets ready.
func TestAnInterruptedMountLeavesNothing(t *testing.T) {
	requireFUSE(t)
	t.Parallel() // it takes the seconds after which a process is killed
	s := newSession(t)
	source := filepath.Join(s.dir, "silent")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	root := mountSilent(t, source, s.source)
	var stderr bytes.Buffer
	c := s.command("mount", source, s.mnt)
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	root.wait(t)
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	err := c.Wait()
	if !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.Contains(stderr.String(),
		"interrupted") {
		t.Errorf("%v: %s", err, &stderr)
	}
	if all, err := mountsBelow(s.mnt); err != nil || len(all) > 0 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}

// mountSilent mounts a silent file system with the files of a directory.
func mountSilent(t *testing.T, mountpoint, files string) *silent {
	t.Helper()
	data := &gofs.LoopbackRoot{Path: files}
	root := &silent{&gofs.LoopbackNode{RootData: data}, new(atomic.Int64)}
	data.RootNode = root
	o := &gofs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "silent"}}
	server, err := gofs.Mount(mountpoint, root, o)
	if err != nil {
		t.Fatal(err)
	}
	keepFUSE(t)
	t.Cleanup(func() {
		_ = unix.Unmount(mountpoint, unix.MNT_DETACH)
		server.Wait()
	})
	return root
}

// wait waits until a read is not answered.
func (n *silent) wait(t *testing.T) {
	t.Helper()
	eventually(t.Fatalf, func() error {
		if n.asked.Load() == 0 {
			return errors.New("nothing was read")
		}
		return nil
	})
}

// keepFUSE keeps FUSE descriptors from programs that are started: one that has them would wait for
// itself.
func keepFUSE(t *testing.T) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && target == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
}

// mountFull mounts a disk in memory that is full.
func mountFull(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		if required("fuse") {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		t.Skipf("mounting a tmpfs takes root: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("ballast-", i)), make([]byte, 4096),
			0o600); err != nil {
			return dir
		}
	}
}

func TestAFullStateDiskKeepsNoHalfRecords(t *testing.T) {
	dir := mountFull(t)
	name := filepath.Join(dir, "mnt-1.json")
	if err := writeFile(name, []byte("{}")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	if left, _ := filepath.Glob(name + "*"); len(left) > 0 {
		t.Errorf("%v was left behind", left)
	}
	if err := os.Remove(filepath.Join(dir, "ballast-0")); err != nil {
		t.Fatal(err)
	}
	// A killed process may have left a link there: the file is not written through it.
	if err := os.Symlink("ballast-1", name+".new"); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(name, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(name); err != nil || string(data) != "{}" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "ballast-1")); err != nil || len(data) != 4096 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if left, _ := filepath.Glob(name + "*"); len(left) != 1 {
		t.Errorf("%v", left)
	}
}
