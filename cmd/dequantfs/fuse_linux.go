package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	dfs "github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// inDocker begins a command that starts a container which may mount.
const inDocker = "docker run --device /dev/fuse --cap-add SYS_ADMIN"

// trouble is the reason why this process cannot mount, and what to type.
type trouble struct {
	Says string
	Ways []string
	// Private: a mount in a user namespace may work nevertheless.
	Private bool
}

// error returns the error for a source. Its hint ends with the commands that need no FUSE.
func (t trouble) error(source string) error {
	ways := append(t.Ways[:len(t.Ways):len(t.Ways)], withoutFUSE(source))
	return withHint(errors.New(t.Says), "%s", strings.Join(ways, "; "))
}

// withoutFUSE says what works on every machine.
func withoutFUSE(source string) string {
	return fmt.Sprintf("without FUSE: dequantfs serve %[1]s, or dequantfs export %[1]s DIRECTORY",
		shellWord(source))
}

// explainMount turns the error of a mount into one that says the cause and the way out. Errors of
// another kind are unchanged.
func explainMount(err error, mountpoint, source string) error {
	t, found := troubleOf(err, mountpoint, source)
	switch {
	case isDescriptor(mountpoint):
		return err
	case errors.Is(err, dfs.ErrMounted):
		return takenPlace(err, mountpoint)
	case !found:
		return foreignMount(err, mountpoint, source)
	}
	if t.Private && tryNamespace() == nil {
		t.Ways = append(t.Ways,
			"for one command: dequantfs run "+shellWord(source)+" -- COMMAND {}")
	}
	return t.error(source)
}

// takenPlace adds the way out to the error of a mountpoint that is a mount already.
func takenPlace(err error, mountpoint string) error {
	if m, found, _ := mounts.Top(mountpoint); found && m.Type == mounts.Type {
		return withHint(err, "dequantfs umount %s; or choose another directory",
			shellWord(mountpoint))
	}
	return withHint(err, "choose another directory")
}

// foreignMount explains that the mountpoint has a mount of another user, which only that user can
// look into.
func foreignMount(err error, mountpoint, source string) error {
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	m, found, _ := mounts.Top(mountpoint)
	if !found || !strings.HasPrefix(m.Type, "fuse") {
		return err
	}
	return withHint(fmt.Errorf("%s: another user has mounted a %s there", mountpoint, m.Type), "%s",
		strings.ReplaceAll(ownFolder, "SOURCE", shellWord(source)))
}

// troubleOf finds the cause if err says that this process may not mount, or not unmount.
func troubleOf(err error, mountpoint, source string) (t trouble, found bool) {
	var failed *mounts.FUSEError
	var stays *mounts.StaysError
	switch {
	case errors.As(err, &stays):
		return trouble{
			stays.Error(), []string{"sudo umount -l " + shellWord(stays.Mountpoint)}, true,
		}, true
	case errors.As(err, &failed):
		return examineFailure(failed, mountpoint, source), true
	}
	return t, false
}

// examineFailure finds the cause of a failed mount. The FUSE device comes first, because everybody
// needs it. Then come the words of the helper, if it has run.
func examineFailure(e *mounts.FUSEError, mountpoint, source string) trouble {
	if t, found := deviceTrouble(e.Direct); found {
		return t
	}
	if lacksAdmin() {
		return trouble{
			"nothing in this container may mount: it lacks CAP_SYS_ADMIN",
			[]string{inDocker + " IMAGE"}, true,
		}
	}
	if errors.Is(e.Helper, mounts.ErrNoTable) {
		return trouble{
			"fusermount3 could not unmount again: " + e.Helper.Error(),
			[]string{showMounts}, true,
		}
	}
	for _, known := range saidByHelper {
		if strings.Contains(e.Said, known.words) {
			ways := strings.NewReplacer("MOUNTPOINT", shellWord(mountpoint), "SOURCE",
				shellWord(source)).Replace(known.way)
			return trouble{"fusermount3: " + e.Said, []string{ways}, known.private}
		}
	}
	return refusedMount(e)
}

// saidByHelper lists the words of the helper that have one cause.
var saidByHelper = []struct {
	words, way string
	private    bool
}{
	{"user_allow_other", "echo user_allow_other | sudo tee -a /etc/fuse.conf; " +
		"or leave --allow-other out", false},
	{"no write access to mountpoint", ownFolder, true},
	{"not owned by user", ownFolder, true},
	{"failed to chdir to mountpoint", ownFolder, true},
	{"failed to access mountpoint", ownFolder, true},
	{"is forbidden", ownFolder, true},
	{"could not determine username", nameUser, true},
	{"too many FUSE filesystems", "dequantfs status lists yours; " +
		"echo mount_max = 10000 | sudo tee -a /etc/fuse.conf", true},
}

// ownFolder is the way out if the mountpoint is not the user's.
const ownFolder = "choose a directory of your own as the mountpoint: dequantfs mount SOURCE ~/view"

// refusedMount finds out why the kernel, and the helper if there is one, refuse a mount.
func refusedMount(e *mounts.FUSEError) trouble {
	says := e.Error()
	switch helper, missing := mounts.Helper(); {
	case errors.Is(e.Direct, unix.ENODEV):
		return trouble{"the kernel has no FUSE: " + says, []string{"sudo modprobe fuse"}, false}
	case mayMount():
		return trouble{
			"the kernel refuses the mount, as AppArmor, SELinux or seccomp let it do: " + says,
			[]string{inDocker + " --security-opt apparmor=unconfined IMAGE"}, false,
		}
	case missing != nil:
		return trouble{
			"fusermount3 is not installed, and this user may not mount without it",
			[]string{"sudo apt install fuse3 (dnf install fuse3, apk add fuse3), or mount as root"},
			true,
		}
	case noNewPrivileges():
		return trouble{
			"fusermount3 has no rights here, since no_new_privs is set: " + says,
			[]string{"in a pod allowPrivilegeEscalation: true"}, true,
		}
	case !setuid(helper):
		return trouble{
			helper + " is not setuid root: " + says, []string{"sudo chmod u+s " + helper}, true,
		}
	}
	return trouble{says, []string{"dequantfs doctor examines this machine"}, true}
}

// deviceTrouble explains an error of opening the FUSE device.
func deviceTrouble(err error) (t trouble, found bool) {
	var p *os.PathError
	if !errors.As(err, &p) || p.Path != mounts.Device {
		return t, false
	}
	t.Says = err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		t.Says = "there is no FUSE here: " + t.Says
		t.Ways = []string{"sudo modprobe fuse; in a container " + inDocker + " IMAGE"}
	case errors.Is(err, unix.EPERM): // the node is there, as made by mknod
		t.Says = "this container may not use the FUSE device: " + t.Says
		t.Ways = []string{inDocker + " IMAGE"}
	case errors.Is(err, fs.ErrPermission):
		t.Says = "this user may not use the FUSE device: " + t.Says
		t.Ways = []string{"ask for access to /dev/fuse: sudo chmod 666 /dev/fuse; in a container " +
			inDocker + " IMAGE"}
	}
	return t, true
}

// mayMount reports whether this process may mount without a helper.
func mayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// lacksAdmin reports whether no process below this one can get the right to mount, not even a
// setuid program.
func lacksAdmin() bool {
	n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0)
	return err == nil && n == 0
}

// noNewPrivileges reports whether setuid programs have no effect for this process.
func noNewPrivileges() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && n == 1
}

func setuid(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode()&os.ModeSetuid != 0
}

// fuseMissing returns the reason why this machine cannot mount, or nil if it can. It mounts a small
// tree to find out.
func fuseMissing() error {
	dir, err := temporaryFolder("dequantfs-trial-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	return dfs.TryMount(dir, false)
}
