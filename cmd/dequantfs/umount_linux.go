package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// detach unmounts what is mounted at mountpoint, if it is ours, and waits until it
// is gone.
func detach(ctx context.Context, mountpoint string, lazy bool) error {
	m, found, err := topMount(mountpoint)
	switch {
	case err != nil:
		return err
	case !found:
		return withHint(fmt.Errorf("%s: nothing is mounted there", mountpoint), "dequantfs status lists the mounts")
	case m.fsType != fsType:
		return fmt.Errorf("%s: a %s is mounted there, not a checkpoint", mountpoint, m.fsType)
	}
	switch err := unmountIdle(ctx, mountpoint, lazy); {
	case errors.Is(err, unix.EBUSY):
		return withHint(fmt.Errorf("%s: %w%s", mountpoint, err, usedBy(mountpoint)),
			"end what uses it (a mapped file is in use too), or detach it with dequantfs umount --lazy")
	case err != nil:
		return fmt.Errorf("%s: %w", mountpoint, err)
	}
	if err := waitGone(ctx, m); err != nil || lazy {
		return err
	}
	waitEnded(ctx, mountpoint)
	return nil
}

// usedBy names the processes that use a mount, as far as we may see.
func usedBy(mountpoint string) string {
	names := users(mountpoint)
	if len(names) == 0 {
		return ""
	}
	return ": used by " + firstFew(names)
}

// users finds the processes whose working directory, root or open files lie in a
// mount. It reads links and does not touch the mount.
func users(mountpoint string) (names []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		links, _ := filepath.Glob(p + "/fd/*")
		for _, l := range append(links, p+"/cwd", p+"/root") {
			target, err := os.Readlink(l)
			if err == nil && (target == mountpoint || strings.HasPrefix(target, mountpoint+"/")) {
				comm, _ := os.ReadFile(p + "/comm")
				names = append(names, fmt.Sprintf("%s (%s)", strings.TrimSpace(string(comm)), filepath.Base(p)))
				break
			}
		}
	}
	return names
}

// A mount that no process is seen to use may stay busy for settling; one that is used, for noticed.
const (
	settling = 5 * time.Second
	noticed  = 200 * time.Millisecond
)

// unmountIdle unmounts. For a moment after its last file was closed, above all one read with O_DIRECT, the
// kernel may still call a mount busy, and a process that is just being started may hold copies of
// descriptors: that is waited for.
func unmountIdle(ctx context.Context, mountpoint string, lazy bool) error {
	began, unused := time.Now(), time.Now()
	for {
		err := unmount(ctx, mountpoint, lazy)
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return err
		}
		if len(users(mountpoint)) == 0 {
			unused = time.Now()
		}
		if time.Since(unused) > noticed || time.Since(began) > settling {
			return err
		}
		pause(ctx)
	}
}

// unmount asks the kernel; without the right to, fusermount does.
func unmount(ctx context.Context, mountpoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(mountpoint, flags)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return fusermount(ctx, mountpoint, lazy)
}

func fusermount(ctx context.Context, mountpoint string, lazy bool) error {
	name, err := exec.LookPath("fusermount3")
	if err != nil {
		if name, err = exec.LookPath("fusermount"); err != nil {
			return err
		}
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.CommandContext(ctx, name, append(args, "--", mountpoint)...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return nil
	case strings.Contains(text, "busy"):
		return unix.EBUSY
	}
	return fmt.Errorf("%s: %w: %s", name, err, text)
}

// waitGone waits until the kernel no longer lists the mount.
func waitGone(ctx context.Context, m mountEntry) error {
	for {
		all, err := mounts()
		if err != nil || !contains(all, m) {
			return err
		}
		if pause(ctx); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func contains(all []mountEntry, m mountEntry) bool {
	for _, other := range all {
		if other == m {
			return true
		}
	}
	return false
}
