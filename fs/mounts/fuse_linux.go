package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is the file through which the kernel and the server of a FUSE filesystem talk.
const Device = "/dev/fuse"

// FUSEOptions say how a FUSE filesystem is mounted. Every mount is read-only, and no programs or
// devices in it can be used.
type FUSEOptions struct {
	Source     string // shown in the table of mounts
	MaxRead    int    // bytes of one request
	AllowOther bool   // to use it, if the permissions of the files allow that
}

// FUSEError is the reason why a FUSE filesystem was not mounted. It has the kernel's answer to this
// process, and that of the helper if one was asked.
type FUSEError struct {
	Direct error  // of open(2) or mount(2)
	Helper error  // that the helper is missing or could not unmount, or how it ended
	Said   string // the words of the helper
}

// Error is what the helper said, or how the kernel refused.
func (e *FUSEError) Error() string {
	switch {
	case e.Said != "":
		return "fusermount3: " + e.Said
	case e.Helper != nil && !errors.Is(e.Helper, exec.ErrNotFound):
		return fmt.Sprintf("%v; %v", e.Direct, e.Helper)
	}
	return e.Direct.Error()
}

// Unwrap returns the answers of the kernel and of the helper.
func (e *FUSEError) Unwrap() []error { return []error{e.Direct, e.Helper} }

// FUSE mounts a FUSE filesystem and returns the descriptor through which it is served. A child
// process does not inherit the descriptor. If the kernel refuses this process, the helper mounts,
// unless this user could not unmount again.
func FUSE(mountpoint string, o FUSEOptions) (fd int, err error) {
	fd, direct := mountFUSE(mountpoint, o)
	if direct == nil {
		return fd, nil
	}
	failed := &FUSEError{Direct: direct}
	var helper string
	if helper, failed.Helper = Helper(); failed.Helper != nil {
		return -1, failed
	}
	if failed.Helper = mayUnmount(); failed.Helper != nil {
		return -1, failed
	}
	fd, failed.Said, failed.Helper = mountByHelper(helper, mountpoint, o)
	if failed.Helper != nil {
		return -1, failed
	}
	return fd, nil
}

// mountFUSE asks the kernel to mount.
func mountFUSE(mountpoint string, o FUSEOptions) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err != nil {
		return -1, &os.PathError{Op: "stat", Path: mountpoint, Err: err}
	}
	fd, err = unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: Device, Err: err}
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d", fd,
		st.Mode&unix.S_IFMT, os.Geteuid(), os.Getegid(), o.MaxRead)
	if o.AllowOther {
		data += ",default_permissions,allow_other"
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err = unix.Mount(o.Source, mountpoint, Type, flags, data); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("mount", err)
	}
	return fd, nil
}

// mountByHelper runs the helper, which mounts and sends the descriptor through a socket. It also
// returns what the helper said.
func mountByHelper(
	helper, mountpoint string, o FUSEOptions,
) (fd int, said string, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	remote := os.NewFile(uintptr(pair[1]), "socketpair")
	defer remote.Close()
	var stderr bytes.Buffer
	c := exec.Command(helper, "-o", o.forHelper(), "--", mountpoint)
	c.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	c.ExtraFiles = []*os.File{remote}
	c.Stdout, c.Stderr = &stderr, &stderr
	err = c.Run()
	if said = words(helper, stderr.String()); err != nil {
		return -1, said, fmt.Errorf("%s: %w", helper, err)
	}
	remote.Close()
	fd, err = receive(pair[0])
	return fd, said, err
}

// forHelper returns the options as the helper reads them.
func (o *FUSEOptions) forHelper() string {
	options := []string{"ro", "nosuid", "nodev", "noexec"}
	if o.AllowOther {
		options = append(options, "default_permissions", "allow_other")
	}
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	return strings.Join(append(options, "fsname="+escape.Replace(o.Source),
		"subtype="+subtype, fmt.Sprintf("max_read=%d", o.MaxRead)), ",")
}

// words returns what the helper said, in one line and without its name.
func words(helper, text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, name := range []string{helper, filepath.Base(helper)} {
			line = strings.TrimPrefix(line, name+": ")
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// receive takes a descriptor out of a socket.
func receive(socket int) (fd int, err error) {
	data, control := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(errors.New("the helper sent no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("the helper sent no descriptor"), err)
	}
	return fds[0], nil
}
