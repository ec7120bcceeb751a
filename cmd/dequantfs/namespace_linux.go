package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// tryMount mounts nothing at a mountpoint for a moment. It returns the reason why this process
// cannot mount there. What is wrong with the mountpoint itself is found later.
func tryMount(mountpoint string, o fs.MountOptions) error {
	if _, found, _ := mounts.Top(mountpoint); found {
		return nil
	}
	return tryFUSE(mountpoint, o.AllowOther)
}

// again runs this command line in a user namespace and a mount namespace of its own, in which this
// user may mount. The command sees its own user there. why says why that is necessary.
func (r *runFlags) again(c *cobra.Command, why error) error {
	child, err := itself()
	if err != nil {
		return err
	}
	logger(c).Debug("mounting in a user namespace", "because", why)
	child.Env = append(os.Environ(), namespaceEnv+"="+oneLine(why.Error()))
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)
	status, err := runChild(child, signals, func() error { return nil })
	if err != nil {
		return inNamespace(why.Error(), noNamespaces(err))
	}
	return asStatus(status)
}

// dropRights takes the rights that a namespace gave to this program from this thread, and so from
// the command that it starts.
func (r *runFlags) dropRights() error {
	if r.namespace == "" {
		return nil
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAP_AMBIENT,
		unix.PR_CAP_AMBIENT_LOWER, unix.CAP_SYS_ADMIN, 0, 0))
}

// noNamespaces explains why a user namespace could not be made.
func noNamespaces(err error) error {
	return fmt.Errorf("the kernel refuses a user namespace: %w", err)
}

// inNamespace joins the reason why a user may not mount, and why a namespace did not help.
func inNamespace(why string, err error) error {
	return errors.Join(errors.New(why), err)
}
