package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// onlyTrial is the value of namespaceEnv for a process that only finds out whether it may mount.
const onlyTrial = "trial"

// again runs this command line in a user namespace and a mount namespace of its own, in which this
// user may mount. The command sees its own user there. t says why that is necessary.
func (r *runFlags) again(c *cobra.Command, t trouble, source string) error {
	why, err := json.Marshal(t)
	if err != nil {
		return err
	}
	child, err := namespaced(string(why), os.Args)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)
	status, err := runChild(child, signals, func() error { return nil })
	if err != nil {
		return alsoInNamespace(string(why), noNamespace(err)).error(source)
	}
	return asStatus(status)
}

// namespaced is this program in a user namespace and a mount namespace of its own.
func namespaced(why string, args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	uid, gid := os.Geteuid(), os.Getegid()
	return &exec.Cmd{
		Path: self, Args: args, Env: append(os.Environ(), namespaceEnv+"="+why),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
		},
	}, err
}

// tryNamespace finds out whether this user can mount in a user namespace.
func tryNamespace() error {
	child, err := namespaced(onlyTrial, []string{"dequantfs", "run", ".", "--", "true"})
	if err != nil {
		return err
	}
	return child.Run()
}

// dropRights takes the rights that a namespace gave to this program from this thread, and so from
// the command that it starts.
func (r *runFlags) dropRights() error {
	if !r.inNamespace {
		return nil
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAP_AMBIENT,
		unix.PR_CAP_AMBIENT_LOWER, unix.CAP_SYS_ADMIN, 0, 0))
}

// switches are settings of the kernel that forbid user namespaces, and what turns them around.
var switches = []struct{ file, forbids, way string }{
	{"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=10000"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0",
		"sudo sysctl kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
		"sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
}

// forbidden returns the setting that forbids user namespaces, and what turns it around.
func forbidden() (setting, way string) {
	for _, s := range switches {
		text, err := os.ReadFile(s.file)
		if value := strings.TrimSpace(string(text)); err == nil && value == s.forbids {
			name := strings.ReplaceAll(strings.TrimPrefix(s.file, "/proc/sys/"), "/", ".")
			return name + " is " + value, s.way
		}
	}
	return "", ""
}

// noNamespace explains why a user namespace could not be made.
func noNamespace(err error) trouble {
	t := trouble{Says: "the kernel makes no user namespace for this user: " + pathless(err).Error()}
	setting, way := forbidden()
	switch {
	case setting != "":
		t.Says = "no user namespace either: " + setting
		t.Ways = []string{way}
	case errors.Is(err, unix.ENOSPC):
		t.Ways = []string{"sudo sysctl user.max_user_namespaces=100000"}
	case errors.Is(err, unix.EPERM):
		t.Ways = []string{"in a container docker run --security-opt seccomp=unconfined IMAGE"}
	}
	return t
}

// refusedInNamespace explains why a user cannot mount in a user namespace.
func refusedInNamespace(err error) trouble {
	t := trouble{Says: "a user namespace did not help: " + err.Error()}
	if setting, way := forbidden(); setting != "" {
		t.Says = "no user namespace either: " + setting
		t.Ways = []string{way}
	}
	return t
}

// alsoInNamespace joins the reason why a user may not mount with the reason why a user namespace
// did not help.
func alsoInNamespace(why string, t trouble) trouble {
	var first trouble
	if err := json.Unmarshal([]byte(why), &first); err != nil {
		first.Says = why
	}
	return trouble{
		Says: fmt.Sprintf("%s; %s", first.Says, t.Says), Ways: append(first.Ways, t.Ways...),
	}
}
