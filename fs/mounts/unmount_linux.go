package mounts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
// refuses this process, the helper does it, and if that cannot, umount(8). The error of a mount in
// use is EBUSY.
func Unmount(ctx context.Context, mountpoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(mountpoint, flags)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	err = unmountByHelper(ctx, mountpoint, lazy)
	if err == nil || errors.Is(err, unix.EBUSY) {
		return err
	}
	other := unmountByUmount(ctx, mountpoint, lazy)
	if other == nil || errors.Is(other, unix.EBUSY) {
		return other
	}
	if _, found, _ := Top(mountpoint); errors.Is(err, ErrForeign) && !found {
		return unix.EINVAL // as the kernel says for a place without a mount
	}
	return err
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
	said, err := askToUnmount(ctx, name, append(args, "--", mountpoint)...)
	if err == nil || errors.Is(err, unix.EBUSY) {
		return err
	}
	return fmt.Errorf("fusermount3: %s: %w", said, cmp.Or(refusal(said), err))
}

// refusal returns the known reason why the helper does not unmount, or nil.
func refusal(said string) error {
	switch {
	case strings.Contains(said, "could not determine username"):
		return ErrNoName
	case os.Getuid() != 0 && !showsMounts(table):
		return ErrNoTable
	case strings.Contains(said, "not found in "+table):
		return ErrForeign
	}
	return nil
}

// unmountByUmount lets umount(8) unmount. That of util-linux does so for the user of a FUSE mount,
// and needs neither /etc/mtab nor the name of the user.
func unmountByUmount(ctx context.Context, mountpoint string, lazy bool) error {
	name, err := userUmount()
	if err != nil {
		return err
	}
	args := []string{"-i"}
	if lazy {
		args = append(args, "-l")
	}
	_, err = askToUnmount(ctx, name, append(args, "--", mountpoint)...)
	return err
}

// askToUnmount runs a program that unmounts, and returns what it said.
func askToUnmount(ctx context.Context, name string, args ...string) (said string, err error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = "/"
	c.Env = append(os.Environ(), "LC_ALL=C")
	out, err := c.CombinedOutput()
	said = words(name, string(out))
	if err != nil && strings.Contains(said, "busy") {
		err = unix.EBUSY
	}
	return said, err
}

// table is the file in which the helper looks for the mounts of a user before it unmounts one.
const table = "/etc/mtab"

// mayUnmount returns the reason why this user could not take down what the helper mounts.
func mayUnmount() error {
	if os.Getuid() == 0 || showsMounts(table) {
		return nil
	}
	if _, err := userUmount(); err == nil {
		return nil
	}
	return ErrNoTable
}

// showsMounts reports whether a file is the kernel's own table of mounts.
func showsMounts(file string) bool {
	var s unix.Statfs_t
	return unix.Statfs(file, &s) == nil && s.Type == unix.PROC_SUPER_MAGIC
}

// userUmount finds an umount(8) that unmounts for users: that of util-linux, if it is setuid root.
func userUmount() (string, error) {
	name, err := exec.LookPath("umount")
	if err != nil {
		if name, err = exec.LookPath("/bin/umount"); err != nil {
			return "", err
		}
	}
	var s unix.Stat_t
	if err := unix.Stat(name, &s); err != nil || s.Mode&unix.S_ISUID == 0 || s.Uid != 0 {
		return "", fmt.Errorf("%s does not unmount for users", name)
	}
	version, err := exec.Command(name, "--version").Output()
	if err != nil || !strings.Contains(string(version), "util-linux") {
		return "", fmt.Errorf("%s is not that of util-linux", name)
	}
	return name, nil
}
