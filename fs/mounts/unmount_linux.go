package mounts

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Helper finds the program that mounts and unmounts for unprivileged users. It looks in /bin too,
// as go-fuse does.
func Helper() (string, error) {
	for _, name := range []string{
		"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount",
	} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return exec.LookPath("fusermount3")
}

// Unmount takes a mount down. With lazy it detaches the mount even if it is in use. If the kernel
// refuses this process, the helper does it. The error of a mount in use is EBUSY.
func Unmount(ctx context.Context, mountpoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(mountpoint, flags)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return unmountByHelper(ctx, mountpoint, lazy)
}

func unmountByHelper(ctx context.Context, mountpoint string, lazy bool) error {
	name, err := Helper()
	if err != nil {
		return err
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
