package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// examineMachine examines everything that a mount needs from Linux.
func examineMachine(ctx context.Context) []finding {
	found := append(examineMounting(), examineAllowOther(), examineReadAhead(),
		examineMaxPages(), examineTimeouts(), examineKernel(), examineOpenFiles(), examineState())
	return append(found, examineMounts(ctx)...)
}

// examineMounting mounts a small tree and reads it. If that fails, it finds out whether a mount in
// a user namespace works.
func examineMounting() []finding {
	const part = "mounting"
	found := []finding{examineDevice(), examineHelper()}
	err := fuseMissing()
	if err == nil {
		return append(found, ok(part, "a small tree was mounted and read"))
	}
	const source = "SOURCE"
	at := explainMount(err, "MOUNTPOINT", source)
	found = append(found, broken(part, at.Error(), hintFor(at)))
	if err := tryNamespace(); err == nil {
		found = append(found, ok("run", "dequantfs run SOURCE -- COMMAND works all the same: "+
			"it mounts in a user namespace"))
	}
	return found
}

func examineDevice() finding {
	const part = "FUSE device"
	f, err := os.OpenFile(mounts.Device, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return ok(part, "/dev/fuse can be opened")
	}
	t, _ := deviceTrouble(err)
	return broken(part, t.Says, strings.Join(t.Ways, "; "))
}

// examineHelper names the helper. What it lacks shows when it mounts.
func examineHelper() finding {
	const part = "mount helper"
	name, err := mounts.Helper()
	switch {
	case err == nil:
		return ok(part, "%s", name)
	case mayMount():
		return ok(part, "root needs none")
	}
	return broken(part, "fusermount3 is not installed", "sudo apt install fuse3 "+
		"(dnf install fuse3, apk add fuse3)")
}

func examineAllowOther() finding {
	const part = "allow-other"
	switch {
	case os.Geteuid() == 0:
		return ok(part, "permitted: this is root")
	case mayAllowOther():
		return ok(part, "permitted by /etc/fuse.conf")
	}
	return better(part, "only root may use --allow-other",
		"echo user_allow_other | sudo tee -a /etc/fuse.conf")
}

// mayAllowOther reports whether this user may use --allow-other.
func mayAllowOther() bool { return os.Geteuid() == 0 || fuseConf("/etc/fuse.conf") }

// fuseConf reports whether a fuse.conf has the line user_allow_other.
func fuseConf(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "user_allow_other" {
			return true
		}
	}
	return false
}

// udevRule lets users raise the read-ahead of their mounts without root. The devices of FUSE are
// those without a disk whose number is that of a FUSE connection.
const udevRule = `echo 'SUBSYSTEM=="bdi", ACTION=="add", KERNEL=="0:*", ` +
	`TEST=="/sys/fs/fuse/connections/%n", ATTR{read_ahead_kb}="16384"' | ` +
	`sudo tee /etc/udev/rules.d/90-dequantfs.rules && sudo udevadm control --reload && ` +
	`sudo udevadm trigger --subsystem-match=bdi --action=add`

func examineReadAhead() finding {
	const part = "read-ahead"
	knobs, _ := filepath.Glob("/sys/class/bdi/*/read_ahead_kb")
	for _, k := range knobs {
		if unix.Access(k, unix.W_OK) == nil {
			return ok(part, "can be raised to what --read-ahead says")
		}
	}
	return better(part, "stays at the kernel's 128KiB: reading one stream is several times slower",
		udevRule)
}

func examineMaxPages() finding {
	const part, knob = "request size", "/proc/sys/fs/fuse/max_pages_limit"
	pages, known := readNumber(knob)
	if !known || pages >= 256 {
		return ok(part, "1MiB or more")
	}
	return better(part, formatSize(pages*int64(os.Getpagesize()))+", less than 1MiB",
		"sudo sysctl fs.fuse.max_pages_limit=256")
}

func examineTimeouts() finding {
	const part = "request timeout"
	for _, name := range []string{"default_request_timeout", "max_request_timeout"} {
		if n, _ := readNumber("/proc/sys/fs/fuse/" + name); n > 0 {
			says := "the kernel ends a mount whose source does not answer for %d seconds"
			return better(part, fmt.Sprintf(says, n), "sudo sysctl fs.fuse."+name+"=0")
		}
	}
	return ok(part, "none")
}

func readNumber(name string) (int64, bool) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// kernelLacks lists the features that kernels before a version lack.
var kernelLacks = []struct {
	major, minor int
	what         string
}{
	{4, 20, "requests of more than 128KiB"},
}

func examineKernel() finding {
	const part = "kernel"
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return broken(part, err.Error(), "")
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, minor := parseRelease(release)
	for _, l := range kernelLacks {
		if major < l.major || major == l.major && minor < l.minor {
			return better(part, release+" lacks "+l.what,
				fmt.Sprintf("use Linux %d.%d or later", l.major, l.minor))
		}
	}
	return ok(part, "%s", release)
}

// parseRelease reads 6 and 18 out of "6.18.5-generic".
func parseRelease(release string) (major, minor int) {
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor
}

func examineOpenFiles() finding {
	const part, wanted = "open files", 4096
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return broken(part, err.Error(), "")
	}
	if r.Max < wanted {
		return better(part, fmt.Sprintf("at most %d; every shard of a source is held open", r.Max),
			"ulimit -Hn 65536")
	}
	return ok(part, "at most %d", r.Max)
}

func examineState() finding {
	const part = "state directory"
	dir, err := stateDir()
	if err != nil {
		return broken(part, err.Error(), hintFor(err))
	}
	return ok(part, "%s", dir)
}

// examineMounts finds mounts of this user that do not answer.
func examineMounts(ctx context.Context) (found []finding) {
	all, _ := states(ctx) // examineState reports the reason
	for _, m := range all {
		switch m.State {
		case stateDead:
			says := m.Mountpoint + ": its process is gone"
			found = append(found, broken("mount", says, "dequantfs umount "+m.Mountpoint))
		case stateSilent:
			says := fmt.Sprintf("%s: its process (%s) does not answer", m.Mountpoint, m.process())
			found = append(found, broken("mount", says, "look into "+m.Log))
		case stateAlive:
			found = append(found, ok("mount", "%s shows %s", m.Mountpoint, m.Source))
		}
	}
	return found
}

// filesystems are file systems that matter for speed, by the number that statfs returns.
var filesystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:       "NFS",
	0x0bd00bd0:                 "Lustre",
	unix.CEPH_SUPER_MAGIC:      "CephFS",
	unix.SMB2_SUPER_MAGIC:      "SMB",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.V9FS_MAGIC:            "9p",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "XFS",
	unix.BTRFS_SUPER_MAGIC:     "Btrfs",
	unix.TMPFS_MAGIC:           "tmpfs",
}

// examineDisk examines the file system of a source.
func examineDisk(path string) []finding {
	const part = "source disk"
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return nil // the source is not a path
	}
	name := filesystems[int64(s.Type)]
	if name == "" {
		name = fmt.Sprintf("filesystem %#x", s.Type)
	}
	if name == "FUSE" || name == "9p" {
		return []finding{better(part, name+": every byte crosses the kernel twice more",
			"copy the source to a local disk if reading is slow")}
	}
	return []finding{ok(part, "%s", name)}
}
