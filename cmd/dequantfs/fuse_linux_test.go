package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// TestMountsWithoutFUSESayTheFix mounts as a user whose machine lacks one thing, in a mount
// namespace of its own. What is said is one line and one hint, also with --allow-other.
func TestMountsWithoutFUSESayTheFix(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	const device = `mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && ` +
		`mount --bind /mnt/fuse /dev/fuse && umount -l /mnt`
	const docker = "--device /dev/fuse --cap-add SYS_ADMIN"
	for name, c := range map[string]struct {
		lacks string // commands of the shell
		as    string // flags of setpriv; empty: as an unprivileged user
		says  string
		hints []string
	}{
		"device of root": {device + " && chmod 600 /dev/fuse", "",
			"open /dev/fuse: permission denied",
			[]string{"ask for access to /dev/fuse", "dequantfs export", docker}},
		"no device": {"mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3", "",
			"open /dev/fuse: no such file or directory", []string{"modprobe fuse", docker}},
		"no helper": {device + ` && for f in /bin/fusermount3 /bin/fusermount; do ` +
			`test ! -e $f || mount --bind /dev/null $f; done`, "",
			"fusermount3 is not installed, and this user may not mount without it",
			[]string{"apt install fuse3", "mount as root", "dequantfs export"}},
		"mountpoint of root": {device + ` && chown 0:0 "$3"`, "",
			"dequantfs: fusermount3: user has no write access to mountpoint MOUNTPOINT",
			[]string{"choose a directory of your own", "dequantfs mount "}},
		"root of a container": {"true", "--bounding-set -sys_admin",
			"nothing in this container may mount: it lacks CAP_SYS_ADMIN",
			[]string{docker, "dequantfs export"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, flag := range []string{"--quiet", "--allow-other"} {
				text := failsToMount(t, c.lacks, c.as, flag)
				said, hint, _ := strings.Cut(text, "\ndequantfs: hint: ")
				if !strings.HasSuffix(said, c.says) || strings.Count(text, "\n") != 2 {
					t.Errorf("%s: it says\n%s", flag, text)
				}
				for _, want := range c.hints {
					if !strings.Contains(hint, want) {
						t.Errorf("%s: the hint lacks %q:\n%s", flag, want, text)
					}
				}
			}
		})
	}
	t.Run("allow-other", func(t *testing.T) {
		text := failsToMount(t, device+` && mount --bind /dev/null /etc/fuse.conf`,
			"", "--allow-other")
		if !strings.HasPrefix(text, "dequantfs: fusermount3: option allow_other only allowed if "+
			"'user_allow_other' is set in /etc/fuse.conf\ndequantfs: hint: "+
			"echo user_allow_other | sudo tee -a /etc/fuse.conf; or leave --allow-other out; ") ||
			strings.Count(text, "\n") != 2 {
			t.Errorf("it says\n%s", text)
		}
	})
}

// failsToMount mounts as a user after some commands, and returns what is said.
func failsToMount(t *testing.T, lacks, as, flag string) string {
	t.Helper()
	s := newSession(t)
	program := copyProgram(t, s.dir)
	for _, d := range []string{s.dir, filepath.Dir(s.dir), s.source, s.mnt} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if as == "" {
		as = "--reuid 65534 --regid 65534 --clear-groups"
	}
	for _, d := range []string{s.mnt, filepath.Join(s.dir, "run")} {
		if strings.Contains(as, "bounding") {
			break
		}
		if err := os.Chown(d, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	script := lacks + ` || exit 99
exec setpriv ` + as + ` "$1" mount --layout hf "$4" "$2" "$3"`
	out, err := s.as(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		script, "sh", program, s.source, s.mnt, flag)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.ReplaceAll(string(out), s.mnt, "MOUNTPOINT")
}

// Other words of the helper and of the kernel than those of the sessions in first_linux_test.go.
func TestFailuresOfMountsAreExplained(t *testing.T) {
	exit := errors.New("exit status 1")
	open := func(err error) error { return &os.PathError{Op: "open", Path: "/dev/fuse", Err: err} }
	for name, c := range map[string]struct {
		failed mounts.FUSEError
		says   string
		way    string
	}{
		"device cgroup": {mounts.FUSEError{Direct: open(unix.EPERM), Helper: exit, Said: "x"},
			"this container may not use the FUSE device: open /dev/fuse: operation not permitted",
			inDocker},
		"no module": {mounts.FUSEError{Direct: open(unix.ENODEV), Helper: exit},
			"there is no FUSE here: open /dev/fuse: no such device", "sudo modprobe fuse"},
		"too many": {mounts.FUSEError{Direct: unix.EPERM, Helper: exit,
			Said: "too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf"},
			"fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in " +
				"/etc/fuse.conf", "mount_max = "},
		"foreign filesystem": {mounts.FUSEError{Direct: unix.EPERM, Helper: exit,
			Said: "mounting over filesystem type 0x9fa0 is forbidden"},
			"fusermount3: mounting over filesystem type 0x9fa0 is forbidden",
			"dequantfs mount 'my model' ~/view"},
		"no file system": {mounts.FUSEError{Direct: unix.ENODEV, Helper: exec.ErrNotFound},
			"the kernel has no FUSE: no such device", "sudo modprobe fuse"},
	} {
		err := explainMount(fmt.Errorf("mount /mnt: %w", &c.failed), "/mnt", "my model")
		hint := hintFor(err)
		if err.Error() != c.says || !strings.Contains(hint, c.way) ||
			!strings.HasSuffix(hint, "without FUSE: dequantfs serve 'my model', or "+
				"dequantfs export 'my model' DIRECTORY") {
			t.Errorf("%s: %v\nhint: %s", name, err, hint)
		}
	}
	other := errors.New("other")
	if explainMount(other, "/mnt", "model") != other || explainMount(nil, "/mnt", "model") != nil {
		t.Error("other errors are changed")
	}
}
