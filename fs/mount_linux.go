package fs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// Mount is a live mount.
type Mount struct {
	fs         *FS
	mountpoint string
	server     *fuse.Server
	done       chan struct{}
	lockedOut  []string
}

// closeOnExec keeps FUSE descriptors from programs that we start. go-fuse forgets that when it
// mounts directly. A child with such a descriptor would keep the connection alive after our death,
// and its own reads of the mount would wait for ever.
func closeOnExec() {
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); err == nil &&
			target == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
}

// timeout of entries and attributes: nothing ever changes.
const timeout = time.Hour

// Mount mounts the tree; it returns once the mountpoint can be read. A mountpoint /dev/fd/N is
// a FUSE descriptor that whoever started us has mounted.
//
// It refuses a mountpoint that overlaps the source (ErrOverlaps) or is a mount already
// (ErrMounted); what a dead process left behind is unmounted first.
func (f *FS) Mount(mountpoint string, o MountOptions) (*Mount, error) {
	direct := !strings.HasPrefix(mountpoint, "/dev/fd/")
	if direct {
		var err error
		if mountpoint, err = f.place(mountpoint); err != nil {
			return nil, err
		}
	}
	if err := f.fitAll(o.allowance()); err != nil {
		return nil, err
	}
	looks := f.newLooks(&o, o.AllowOther || !direct)
	root := &dirNode{fs: f, node: f.root, looks: looks}
	server, err := gofs.Mount(mountpoint, root, f.fuseOptions(o, direct))
	if err != nil {
		if direct {
			detach(mountpoint) // go-fuse leaves a mount behind whose first exchange failed
		}
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	closeOnExec()
	f.warn()
	m := &Mount{
		fs: f, mountpoint: mountpoint, server: server, done: make(chan struct{}),
		lockedOut: f.lockedOut(looks),
	}
	go func() {
		server.Wait()
		close(m.done)
	}()
	if direct {
		f.setReadAhead(mountpoint, o.ReadAhead)
	}
	return m, nil
}

// warn logs which changes of the source reads would not notice.
func (f *FS) warn() {
	if f.checkpoint == nil {
		return
	}
	for _, line := range f.checkpoint.Unseen() {
		f.log.Warn(line)
	}
}

// fuseOptions are the options for go-fuse. They decide the speed if a file answers each request
// 2 ms late: 3.9 GB/s as they are, 1.6 with requests of 128 KiB, 2.2 with the kernel's 12 requests
// in the background, and 0.12 with its read-ahead of 128 KiB. Direct reads fall from 4.2 to 0.44
// without CAP_ASYNC_DIO. Splicing gains nothing.
func (f *FS) fuseOptions(o MountOptions, direct bool) *gofs.Options {
	t := timeout
	name := o.FsName
	if name == "" {
		name = "dequantfs"
	}
	options := []string{"ro", "noexec"}
	if o.AllowOther {
		options = append(options, "default_permissions")
	}
	return &gofs.Options{
		EntryTimeout: &t, AttrTimeout: &t, NegativeTimeout: &t,
		RootStableAttr: &gofs.StableAttr{Ino: f.root.ino},
		Logger:         log.New(logWriter{f.log}, "", 0),
		MountOptions: fuse.MountOptions{
			AllowOther:           o.AllowOther,
			Options:              options,
			MaxBackground:        f.shares.requests,
			CongestionThreshold:  f.shares.requests,
			MaxWrite:             f.shares.requestSize,
			FsName:               name,
			Name:                 "dequantfs",
			DisableXAttrs:        true,
			DisableSplice:        true,
			ExtraCapabilities:    fuse.CAP_ASYNC_DIO,
			DirectMount:          direct,
			IgnoreSecurityLabels: true,
			Debug:                o.Debug,
			Logger:               log.New(logWriter{f.log}, "", 0),
			PanicHandler: func(v any) fuse.Status {
				_ = f.units.Panicked("handler", v) // logged
				return fuse.EIO
			},
		},
	}
}

// logWriter passes go-fuse's lines on to slog.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(p)), slog.String("from", "go-fuse"))
	return len(p), nil
}

// place checks a mountpoint and gives its real path.
func (f *FS) place(mountpoint string) (string, error) {
	real, err := ResolveMountpoint(mountpoint)
	if err != nil {
		return "", err
	}
	if dead(real) {
		f.log.Warn("unmounting what a dead process left behind", slog.String("mountpoint", real))
		if err := detach(real); err != nil {
			return "", fmt.Errorf("%s: a dead mount is in the way: %w; try fusermount3 -uz %s",
				real, err, real)
		}
	}
	if st, err := os.Stat(real); err != nil {
		return "", err
	} else if !st.IsDir() {
		return "", fmt.Errorf("%s: is not a directory", real)
	}
	if m, found, _ := mounts.Top(real); found {
		return "", fmt.Errorf("%s: %w (%s); unmount it or choose another directory",
			real, ErrMounted, m.Type)
	}
	return real, f.checkPlace(real)
}

// dead reports whether the process behind a mount is gone. The kernel may still answer stat from
// its cache, but not statfs.
func dead(mountpoint string) bool {
	var s unix.Statfs_t
	return errors.Is(unix.Statfs(mountpoint, &s), unix.ENOTCONN)
}

// setReadAhead raises the read-ahead of the kernel for the mount, if that is permitted. go-fuse can
// only lower it.
func (f *FS) setReadAhead(mountpoint string, n int64) {
	if n <= 0 {
		n = defaultReadAhead
	}
	m, found, _ := mounts.Top(mountpoint)
	if !found {
		return
	}
	knob := "/sys/class/bdi/" + m.Device + "/read_ahead_kb"
	if err := os.WriteFile(knob, []byte(strconv.FormatInt(n>>10, 10)), 0); err != nil {
		f.log.Info("read-ahead stays as the kernel has it; reading will be slower",
			slog.String("knob", knob), slog.Any("error", err))
	}
}

// LockedOut says which other users cannot read what of the mount, and why, a line each. The kernel
// only gives them an errno.
func (m *Mount) LockedOut() []string { return m.lockedOut }

// Heap is what the garbage collector may manage so that all of the process stays within its memory.
func (m *Mount) Heap() int64 { return heapInUse() + m.fs.shares.heap() }

// Wait returns when the mount is gone.
func (m *Mount) Wait() error {
	<-m.done
	return nil
}

// Unmount unmounts; lazy detaches at once.
func (m *Mount) Unmount(lazy bool) error {
	if lazy {
		return detach(m.mountpoint)
	}
	return m.server.Unmount()
}

// Shutdown unmounts. While files are open it tries again until ctx is done. Then it detaches the
// mount, which disappears when the last file is closed. It does not wait for that.
func (m *Mount) Shutdown(ctx context.Context) error {
	for {
		err := unix.Unmount(m.mountpoint, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EPERM) {
			err = m.server.Unmount()
		}
		if err == nil || !m.mounted() {
			select {
			case <-m.done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-m.done:
			return nil
		case <-ctx.Done():
			return or(detach(m.mountpoint), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (m *Mount) mounted() bool {
	_, found, _ := mounts.Top(m.mountpoint)
	return found
}

// detach unmounts lazily, if anything is mounted.
func detach(mountpoint string) error {
	err := mounts.Unmount(context.Background(), mountpoint, true)
	if errors.Is(err, unix.EINVAL) {
		return nil // nothing is mounted
	}
	return err
}
