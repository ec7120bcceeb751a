package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	dfs "github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// noFUSE is the way out where FUSE cannot be had.
const noFUSE = "dequantfs export needs no FUSE"

// inDocker names the flags of a container that mounts.
const inDocker = "in Docker --device /dev/fuse --cap-add SYS_ADMIN"

// checkFUSE finds out why this process cannot mount at a mountpoint. The helper that mounts for
// users prints its reasons only to standard error, and in its own words.
func checkFUSE(mountpoint string, o dfs.MountOptions) error {
	if isDescriptor(mountpoint) {
		return nil
	}
	if err := openDevice(); err != nil {
		return err
	}
	if mayMount() {
		return nil
	}
	if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0); err == nil &&
		n == 0 { // as in a container: a helper cannot get it either
		return withHint(errors.New("nothing in this container may mount: it lacks CAP_SYS_ADMIN"),
			inDocker+"; "+noFUSE)
	}
	if _, err := mounts.Helper(); err != nil {
		return withHint(errors.New("fusermount3 is not installed, and this user may not mount "+
			"without it"), "apt install fuse3 (dnf install fuse3), or mount as root; "+noFUSE)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if err := checkOwn(mountpoint); err != nil {
		return err
	}
	if o.AllowOther && !mayAllowOther() {
		return withHint(errors.New("only root may use --allow-other: /etc/fuse.conf does not have "+
			"the line user_allow_other"),
			"put a line user_allow_other into /etc/fuse.conf, or leave --allow-other out")
	}
	return nil
}

// openDevice opens the FUSE device, as each mount has to.
func openDevice() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return withHint(err, "modprobe fuse; "+inDocker+"; "+noFUSE)
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "ask for access to /dev/fuse (as root: chmod 666 /dev/fuse); "+
			inDocker+"; "+noFUSE)
	}
	return err
}

// mayMount reports whether this process may mount without a helper.
func mayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// checkOwn refuses a mountpoint at which the helper mounts nothing for this user. That is a folder
// that this user cannot write to, or one of another user where only owners may remove entries.
func checkOwn(mountpoint string) error {
	var st unix.Stat_t
	err := unix.Stat(mountpoint, &st)
	isFolder := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	if _, found, _ := mounts.Top(mountpoint); found || !isFolder {
		return nil // mounting has a better reason
	}
	foreign := st.Mode&unix.S_ISVTX != 0 && int(st.Uid) != os.Geteuid()
	if !foreign && unix.Faccessat(unix.AT_FDCWD, mountpoint, unix.W_OK, unix.AT_EACCESS) == nil {
		return nil
	}
	return withHint(fmt.Errorf("mount %s: this user has no write access to the mountpoint",
		mountpoint), "choose a directory of your own as the mountpoint")
}

// explainHelper replaces an error of the helper that says nothing: its exit status, or that it is
// missing, which matters only after the kernel has refused a mount without it.
func explainHelper(err error) error {
	if err == nil {
		return nil
	}
	at, _, status := strings.Cut(err.Error(), ": fusermount exited with code")
	switch {
	case status:
		return withHint(fmt.Errorf("%s: fusermount3 could not mount: its reason is above", at),
			"dequantfs doctor examines this machine; "+noFUSE)
	case lacksHelper(err):
		at, _, _ := strings.Cut(err.Error(), ": exec: ")
		return withHint(fmt.Errorf("%s: the kernel refuses the mount, and fusermount3 is not "+
			"installed", at), inDocker+" --security-opt apparmor=unconfined; "+noFUSE)
	}
	return err
}

// tryFUSE mounts at a mountpoint for a moment, without a process that serves.
func tryFUSE(mountpoint string, allowOther bool) error {
	fd, err := mounts.FUSE(mountpoint, mounts.FUSEOptions{
		Source: "dequantfs", MaxRead: 4096, AllowOther: allowOther,
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return mounts.Unmount(context.Background(), mountpoint, true)
}
