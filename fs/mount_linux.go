package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// Mount is a live mount.
type Mount struct {
	fs         *FS
	mountpoint string
	server     *fuse.Server
	done       chan struct{}
	lockedOut  []string
	maps       bool
}

// timeout is how long the kernel caches entries and attributes. They never change.
const timeout = time.Hour

// Mount mounts the tree. It returns when the mountpoint can be read. A mountpoint /dev/fd/N is a
// FUSE descriptor that the parent process has mounted.
//
// It refuses a mountpoint that overlaps the source (ErrOverlaps) or is already a mount
// (ErrMounted). A mount whose process is dead is unmounted first.
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
	ahead := f.forerunsOf(mountpoint, direct, o)
	root := &dirNode{fs: f, node: f.root, looks: looks, ahead: ahead}
	f.direct = o.Direct
	descriptor := mountpoint
	if direct {
		fd, err := mounts.FUSE(mountpoint, f.kernelOptions(o))
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
		}
		descriptor = fmt.Sprintf("/dev/fd/%d", fd)
	}
	server, err := gofs.Mount(descriptor, root, f.fuseOptions(o))
	if err == nil && direct {
		err = firstPoll(mountpoint)
	}
	if err != nil {
		if direct {
			detach(mountpoint) // go-fuse leaves a mount behind whose first exchange failed
		}
		if ahead != nil {
			ahead.close()
		}
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	f.ahead.Store(ahead)
	f.sayUnseen()
	m := &Mount{
		fs: f, mountpoint: mountpoint, server: server, done: make(chan struct{}),
		lockedOut: f.lockedOut(looks),
		maps:      !o.Direct || server.KernelSettings().Flags64()&capabilities(o)&mapsDirect != 0,
	}
	go func() {
		server.Wait()
		if ahead != nil {
			ahead.close()
		}
		close(m.done)
	}()
	if direct {
		f.setReadAhead(mountpoint, o.ReadAhead)
	}
	return m, nil
}

// leastWorkers is how many processors AheadAuto wants.
const leastWorkers = 3

// forerunsOf makes the foreruns of a mount, or nil if it has none.
func (f *FS) forerunsOf(mountpoint string, direct bool, o MountOptions) *foreruns {
	if o.Ahead == AheadOff || o.Ahead == AheadAuto && f.options.Workers < leastWorkers {
		return nil
	}
	var path func(string) string
	if direct {
		path = func(name string) string { return filepath.Join(mountpoint, name) }
	}
	return f.newForeruns(path, cmp.Or(o.ReadAhead, defaultReadAhead))
}

// firstPoll polls a file that go-fuse has for that, so that the kernel asks no second time. Without
// it a program that reads its own mount could wait forever. go-fuse polls only if it has mounted.
func firstPoll(mountpoint string) error {
	fd, err := unix.Open(mountpoint+"/.go-fuse-epoll-hack", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) // ENOSYS, of course
	return nil
}

// sayUnseen logs which changes of the source would not be noticed by reads. It warns of them. An
// exchange of blocks is only a note, because hardly any program makes one.
func (f *FS) sayUnseen() {
	if f.checkpoint == nil {
		return
	}
	for _, line := range f.checkpoint.Unseen() {
		level := slog.LevelWarn
		if strings.Contains(line, "do not notice "+source.Exchanged) {
			level = slog.LevelInfo
		}
		f.log.Log(context.Background(), level,
			"harmless unless the model is rewritten while it is mounted: "+line)
	}
}

// kernelOptions returns the options for the kernel.
func (f *FS) kernelOptions(o MountOptions) mounts.FUSEOptions {
	return mounts.FUSEOptions{
		Source:     cmp.Or(o.FsName, "dequantfs"),
		MaxRead:    f.shares.requestSize,
		AllowOther: o.AllowOther,
	}
}

// fuseOptions returns the options for go-fuse. Large requests, many requests at once and large
// read-ahead keep slow sources busy. CAP_ASYNC_DIO does so for direct reads. Splicing gains
// nothing.
func (f *FS) fuseOptions(o MountOptions) *gofs.Options {
	t := timeout
	return &gofs.Options{
		EntryTimeout: &t, AttrTimeout: &t, NegativeTimeout: &t,
		RootStableAttr: &gofs.StableAttr{Ino: f.root.ino},
		Logger:         log.New(logWriter{f.log}, "", 0),
		MountOptions: fuse.MountOptions{
			AllowOther:           o.AllowOther,
			MaxBackground:        f.shares.requests,
			CongestionThreshold:  f.shares.requests,
			MaxWrite:             f.shares.requestSize,
			Name:                 "dequantfs",
			DisableXAttrs:        true,
			DisableSplice:        true,
			ExtraCapabilities:    capabilities(o),
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

// mapsDirect is the capability of kernels that map files shared although reads of them go past the
// page cache. Linux has it since 6.6.
const mapsDirect uint64 = fuse.CAP_DIRECT_IO_ALLOW_MMAP

// capabilities returns what is asked of the kernel beside what go-fuse asks for.
func capabilities(o MountOptions) uint64 {
	c := uint64(fuse.CAP_ASYNC_DIO)
	if o.Direct && !o.unmapped {
		c |= mapsDirect
	}
	return c
}

// logWriter passes go-fuse's lines on to slog.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(p)), slog.String("from", "go-fuse"))
	return len(p), nil
}

// place checks a mountpoint and returns its real path.
func (f *FS) place(mountpoint string) (string, error) {
	real, err := ResolveMountpoint(mountpoint)
	if err != nil {
		return "", err
	}
	if dead(real) {
		f.log.Warn("unmounting a mount whose process is dead", slog.String("mountpoint", real))
		if err := detach(real); err != nil {
			return "", fmt.Errorf("%s: a dead mount is in the way: %w; as root: umount -l %s",
				real, err, real)
		}
	}
	if st, err := os.Stat(real); err != nil {
		return "", err
	} else if !st.IsDir() {
		return "", fmt.Errorf("%s: is not a directory", real)
	}
	if m, found, _ := mounts.Top(real); found {
		return "", fmt.Errorf("%s: %w (%s)", real, ErrMounted, m.Type)
	}
	return real, f.checkPlace(real)
}

// dead reports whether the process behind a mount is gone. The kernel may still answer stat from
// its cache, but not statfs.
func dead(mountpoint string) bool {
	var s unix.Statfs_t
	return errors.Is(unix.Statfs(mountpoint, &s), unix.ENOTCONN)
}

// setReadAhead raises the kernel's read-ahead for the mount, if that is permitted. go-fuse can only
// lower it.
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
		f.log.Info("the kernel's read-ahead could not be raised, so reading is slower: " +
			"dequantfs doctor says how to raise it")
		f.log.Debug("read-ahead", slog.String("knob", knob), slog.Any("error", err))
	}
}

// LockedOut describes which other users cannot read which files of the mount, and why, one line
// each. The kernel gives those users only an errno.
func (m *Mount) LockedOut() []string { return m.lockedOut }

// Maps reports whether programs can map the shards of the mount as shared (MAP_SHARED). Kernels
// before 6.6 refuse that with ENODEV if reads go past the page cache. They still map privately.
func (m *Mount) Maps() bool { return m.maps }

// Heap returns the heap size that keeps the whole process within its memory.
func (m *Mount) Heap() int64 { return heapInUse() + m.fs.shares.heap() }

// NetworkMemory returns the part of it for a source over a network.
func (m *Mount) NetworkMemory() int64 { return m.fs.shares.network }

// Wait returns when the mount is gone.
func (m *Mount) Wait() error {
	<-m.done
	return nil
}

// settling is how long a mount may be busy after its last file was closed.
const settling = 100 * time.Millisecond

// Unmount unmounts. With lazy it detaches the mount at once, even if it is in use.
func (m *Mount) Unmount(lazy bool) error {
	if lazy {
		return detach(m.mountpoint)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	for {
		err := mounts.Unmount(ctx, m.mountpoint, false)
		if err == nil {
			return m.Wait()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(settling / 10):
		}
	}
}

// Shutdown unmounts. While files are open it tries again, until ctx is done. Then it detaches the
// mount and returns. A detached mount disappears when the last file is closed.
func (m *Mount) Shutdown(ctx context.Context) error {
	for {
		err := mounts.Unmount(context.WithoutCancel(ctx), m.mountpoint, false)
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
