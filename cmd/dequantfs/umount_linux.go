package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// detach unmounts a checkpoint and waits until its mount is gone. It refuses other kinds of mounts.
func detach(ctx context.Context, mountpoint string, lazy bool) error {
	m, found, err := mounts.Top(mountpoint)
	switch {
	case err != nil:
		return err
	case !found:
		return withHint(fmt.Errorf("%s: nothing is mounted there", mountpoint), listMounts)
	case m.Type != mounts.Type:
		return fmt.Errorf("%s: a %s is mounted there, not a checkpoint", mountpoint, m.Type)
	}
	if leadsInto("/proc/self/cwd", mountpoint) {
		_ = os.Chdir("/") // so that this process does not keep the mount busy
	}
	if err := unmountIdle(ctx, mountpoint, lazy); err != nil {
		return notUnmounted(mountpoint, err)
	}
	if err := waitGone(ctx, m); err != nil || lazy {
		return err
	}
	waitEnded(ctx, mountpoint)
	return nil
}

// elsewhere reports whether a mount is in another mount namespace, as that of a run command.
func (r *record) elsewhere() bool {
	_, found, err := mounts.Top(r.Mountpoint)
	return err == nil && !found
}

// notUnmounted returns the error for a mountpoint. If the mount is busy, it names the processes
// that use it.
func notUnmounted(mountpoint string, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", mountpoint, err)
	}
	by := ""
	if names := holders(mountpoint); len(names) > 0 {
		by = ": used by " + firstFew(names)
	}
	return withHint(fmt.Errorf("%s: %w%s", mountpoint, err, by),
		"end what uses it, or detach it with dequantfs umount --lazy")
}

// A busy mount without a known holder is tried again for settling, and one with a holder for
// noticed.
const (
	settling = 5 * time.Second
	noticed  = 200 * time.Millisecond
)

// unmountIdle unmounts, and tries again for a while if the mount is busy. The kernel may call a
// mount busy for a moment after its last file was closed, mostly after reads with O_DIRECT. A
// process that is starting may hold copies of descriptors for a moment.
func unmountIdle(ctx context.Context, mountpoint string, lazy bool) error {
	began, unused := time.Now(), time.Now()
	for {
		err := mounts.Unmount(ctx, mountpoint, lazy)
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return err
		}
		if len(holders(mountpoint)) == 0 {
			unused = time.Now()
		}
		if time.Since(unused) > noticed || time.Since(began) > settling {
			return err
		}
		pause(ctx)
	}
}

// waitGone waits until the kernel no longer lists the mount.
func waitGone(ctx context.Context, m mounts.Entry) error {
	for {
		all, err := mounts.List()
		if err != nil || !slices.Contains(all, m) {
			return err
		}
		if pause(ctx); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
