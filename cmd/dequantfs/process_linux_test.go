package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// session is a place for a test's mounts: a source, a mountpoint, a state directory.
type session struct {
	t                testing.TB
	dir, source, mnt string
	program          string
}

func newSession(t testing.TB) *session {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &session{t: t, dir: dir, source: filepath.Join(dir, "model"),
		mnt: filepath.Join(dir, "mnt"), program: program}
	if err := writeCheckpoint(s.source, "shards=2", "mtp=1"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"run", "mnt"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { clearMounts(dir) })
	return s
}

// command is this program with arguments, in the session's environment.
func (s *session) command(args ...string) *exec.Cmd {
	return s.as(&exec.Cmd{Path: s.program, Args: append([]string{"dequantfs"}, args...)})
}

// as gives a command the session's environment.
func (s *session) as(c *exec.Cmd) *exec.Cmd {
	c.Dir = s.dir
	c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Join(s.dir, "run"), "HOME="+s.dir,
		"NOTIFY_SOCKET=")
	return c
}

// run runs the program and requires success.
func (s *session) run(args ...string) string {
	s.t.Helper()
	return s.output(s.command(args...))
}

func (s *session) output(c *exec.Cmd) string {
	s.t.Helper()
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s%s", c.Args, err, out, &stderr)
	}
	return string(out)
}

// status is the state of the only mount, as status --json prints it.
func (s *session) status() mountState { return s.statusOf() }

// statusOf is status with more flags.
func (s *session) statusOf(flags ...string) mountState {
	s.t.Helper()
	var all statusJSON
	out := s.run(append([]string{"status", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		s.t.Fatal(err)
	}
	if len(all.Mounts) != 1 || all.Version != jsonVersion {
		s.t.Fatalf("%d mounts, version %d", len(all.Mounts), all.Version)
	}
	return all.Mounts[0]
}

// files lists the files of the mount.
func (s *session) files() (names []string) {
	s.t.Helper()
	err := filepath.WalkDir(s.mnt, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return names
}

// readDirect reads a file past the page cache, so that each byte received was served for this
// reader.
func readDirect(name string) (int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f},
		make([]byte, 64<<10))
}

// Status and the metrics count the bytes that readers received, even if many read at once.
func TestCountersEqualWhatReadersReceived(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", "--metrics", ":0", "--cache-size", "256KiB", s.source, s.mnt)
	names := s.files()
	var wg sync.WaitGroup
	var received [8]int64
	for i := range received {
		wg.Go(func() {
			for j := range names {
				n, err := readDirect(names[(i+j)%len(names)])
				if err != nil {
					t.Error(err)
				}
				received[i] += n
			}
		})
	}
	wg.Wait()
	var total int64
	for _, n := range received {
		total += n
	}
	m := s.status()
	if m.Stats.Bytes != total {
		t.Errorf("status counts %d bytes, the readers received %d", m.Stats.Bytes, total)
	}
	if m.Stats.Errors != 0 || m.Stats.Active != 0 {
		t.Errorf("%d errors, %d reads under way", m.Stats.Errors, m.Stats.Active)
	}
	answer, err := http.Get("http://" + m.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	served := regexp.MustCompile(`(?m)^dequantfs_served_bytes_total (\S+)$`).FindSubmatch(text)
	if served == nil {
		t.Fatalf("no counter in\n%s", text)
	}
	if n, err := strconv.ParseFloat(string(served[1]), 64); err != nil || int64(n) != total {
		t.Errorf("the metrics count %s bytes, the readers received %d", served[1], total)
	}
	s.run("umount", s.mnt)
}

// TestUnprivilegedUserMounts: a user need not be root to mount, and then no other user reads the
// mount, not even root. It runs in a mount namespace where all users may open /dev/fuse, as under
// udev.
func TestUnprivilegedUserMounts(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	s := newSession(t)
	const nobody = 65534
	program := copyProgram(t, s.dir)
	for _, d := range []string{s.dir, filepath.Dir(s.dir), s.source} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{s.mnt, filepath.Join(s.dir, "run")} {
		if err := os.Chown(d, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	script := `set -e
device=$(mktemp -d)
mount -t tmpfs none "$device"
mknod -m 666 "$device/fuse" c 10 229
mount --bind "$device/fuse" /dev/fuse
umount -l "$device"
rmdir "$device"
as() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
as "$1" mount "$2" "$3"
as grep -q deepseek_v3 "$3/hf/config.json"
if cat "$3/hf/config.json"; then echo 'root reads the mount of another user'; exit 1; fi
as "$1" status | grep ' alive '
as "$1" doctor
as "$1" umount "$3"
! grep " $3 " /proc/self/mounts`
	out := s.output(s.as(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		script, "sh", program, s.source, s.mnt)))
	for _, want := range []string{" alive ", "FUSE device", "mount helper"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		if required("root") {
			t.Fatal("root is required")
		}
		t.Skip("needs root")
	}
}

// requireHelper skips a test of an unprivileged user if there is no program that mounts for users.
func requireHelper(t *testing.T) {
	t.Helper()
	if _, err := mounts.Helper(); err != nil {
		if required("fuse") {
			t.Fatalf("a mount helper is required: %v", err)
		}
		t.Skipf("no mount helper: %v", err)
	}
}

// copyProgram copies the test binary to a folder where all users may execute it.
func copyProgram(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "dequantfs")
	if err := os.WriteFile(name, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// A line of fstab mounts. mount(8) looks for its helper in /sbin, so this happens in
// a mount namespace where /usr/sbin holds nothing but the helper.
func TestFstabLineMounts(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	program := copyProgram(t, s.dir)
	fstab := filepath.Join(s.dir, "fstab")
	line := fmt.Sprintf("%s %s fuse.dequantfs layout=hf,cache_size=32MiB,noatime,nofail 0 0\n",
		s.source, s.mnt)
	if err := os.WriteFile(fstab, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `set -e
sbin=$(readlink -f /sbin)
PATH=/usr/bin:/bin
mount -t tmpfs none "$sbin"
cp "$1" "$sbin/mount.fuse.dequantfs"
mount "$2"
grep -q deepseek_v3 "$2/config.json"
umount "$2"
mount -t fuse.dequantfs -o ro,layout=native+hf "$3" "$2"
test -f "$2/native/config.json" -a -f "$2/hf/config.json"
"$1" umount "$2"
! grep " $2 " /proc/self/mounts`
	c := s.as(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script,
		"sh", program, s.mnt, s.source))
	c.Env = append(c.Env, "LIBMOUNT_FSTAB="+fstab)
	s.output(c)
}

// TestPassedDescriptorMounts: a program with the right to mount passes a descriptor that is mounted
// already.
func TestPassedDescriptorMounts(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())
	if err := unix.Mount("passed", s.mnt, mounts.Type, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY,
		data); err != nil {
		t.Fatal(err)
	}
	c := s.command("mount", "--foreground", "--layout", "hf", s.source, "/dev/fd/3")
	c.ExtraFiles = []*os.File{device}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	device.Close()
	text := s.output(s.as(exec.Command("cat", filepath.Join(s.mnt, "config.json"))))
	if !strings.Contains(text, "deepseek_v3") {
		t.Errorf("config.json is %q", text)
	}
	if err := unix.Unmount(s.mnt, 0); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
}

func TestMountIsReadOnlyAndInert(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", s.source, s.mnt)
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^\S+ ` + s.mnt + ` fuse\.dequantfs (\S+)`).FindSubmatch(table)
	if line == nil {
		t.Fatal("it is not in the table of mounts")
	}
	for _, option := range []string{"ro", "nosuid", "nodev", "noexec"} {
		if !strings.Contains(","+string(line[1])+",", ","+option+",") {
			t.Errorf("it is not mounted %s: %s", option, line[1])
		}
	}
	s.run("umount", s.mnt)
}

func TestStateDirectoryOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkPrivate(dir); err != nil {
		t.Errorf("one's own: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if checkPrivate(link) == nil {
		t.Error("a link is taken")
	}
	for _, mode := range []os.FileMode{0o755, 0o777, 0o750} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if checkPrivate(dir) == nil {
			t.Errorf("mode %o is taken", mode)
		}
	}
	requireRoot(t)
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	if checkPrivate(dir) == nil {
		t.Error("that of another user is taken")
	}
}

// Nothing needs the network, and only serve and the metrics can listen. Everything works in a
// network namespace without an interface.
func TestNoNetwork(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	for _, args := range [][]string{
		{"demo"}, {"ls", s.source}, {"mount", s.source, s.mnt}, {"status"}, {"umount",
			s.mnt}, {"doctor", s.source},
	} {
		c := s.command(args...)
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		s.output(c)
	}
	for _, name := range []string{"net/http", `"tcp"`} {
		files, err := filepath.Glob("*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			listens := f == "metrics.go" || strings.HasPrefix(f, "serve")
			if bytes.Contains(text, []byte(name)) && !listens && !strings.HasSuffix(f, "_test.go") {
				t.Errorf("%s has %s", f, name)
			}
		}
	}
}

// systemd gets READY=1 when the mount can be read, and STOPPING=1 at the end.
func TestSystemdIsTold(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	address := filepath.Join(s.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	c := s.command("mount", "-f", s.source, s.mnt)
	c.Env = append(c.Env, "NOTIFY_SOCKET="+address)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1000)
	n, err := socket.Read(buffer)
	if err != nil || !strings.HasPrefix(string(buffer[:n]),
		fmt.Sprintf("READY=1\nMAINPID=%d\n", c.Process.Pid)) {
		t.Errorf("systemd was told %q, %v", buffer[:n], err)
	}
	if _, err := os.Stat(filepath.Join(s.mnt, "hf", "config.json")); err != nil {
		t.Errorf("it is told ready before it is: %v", err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if n, err = socket.Read(buffer); err != nil || string(buffer[:n]) != "STOPPING=1" {
		t.Errorf("systemd was told %q, %v", buffer[:n], err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
}

func TestSystemdUnitIsRight(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if required("systemd") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	unit, err := os.ReadFile(filepath.Join("deploy", "dequantfs@.service"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := copyProgram(t, dir) // the unit must name a program that exists
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/dequantfs", program)
	if text == string(unit) {
		t.Error("the unit does not start /usr/local/bin/dequantfs")
	}
	name := filepath.Join(dir, "dequantfs@DeepSeek\\x2dV3.service")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", name).CombinedOutput()
	if err != nil || strings.Contains(string(out), "dequantfs@") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The messages of a mount in the background are in its log after its caller has ended.
func TestBackgroundKeepsItsMessages(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", s.source, s.mnt)
	log := s.status().Log
	if log == "" {
		t.Fatal("status names no log")
	}
	shard := filepath.Join(s.source, "model-00001-of-000002.safetensors")
	if err := os.Truncate(shard, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := readDirect(filepath.Join(s.mnt, "hf",
		"model-00001-of-000002.safetensors")); err == nil {
		t.Error("a truncated source can be read")
	}
	s.run("umount", s.mnt)
	eventually(t.Fatalf, func() error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		for _, part := range []string{"msg=mounted", filepath.Base(shard), "msg=unmounted"} {
			if !strings.Contains(string(text), part) {
				return fmt.Errorf("the log does not say %q:\n%s", part, text)
			}
		}
		return nil
	})
}

// BenchmarkLifecycle is how long the commands take, from start to end.
func BenchmarkLifecycle(b *testing.B) {
	s := newSession(b)
	step := map[string][]string{
		"mount": {"mount", s.source, s.mnt}, "status": {"status"}, "umount": {"umount", s.mnt},
	}
	for b.Loop() {
		s.run(step["mount"]...)
		s.run(step["status"]...)
		s.run(step["umount"]...)
	}
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N)/3, "ms/command")
}

// TestHangupsUnmount sends SIGHUP twice to a mount in use, as the kernel and the shell do when a
// terminal closes. The mount still ends in order.
func TestHangupsUnmount(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	c := s.command("mount", "-f", s.source, s.mnt, "--layout", "hf")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var open *os.File
	eventually(t.Fatalf, func() (err error) {
		open, err = os.Open(filepath.Join(s.mnt, "config.json"))
		return err
	})
	eventually(t.Fatalf, func() error {
		if len(recordsOf(filepath.Join(s.dir, "run", "dequantfs"), s.mnt)) == 0 {
			return errors.New("no record of the mount")
		}
		return nil
	})
	for range 2 {
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // so that the first one is noticed, and not both at once
	}
	open.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("after two SIGHUPs: %v", err)
	}
	if all, err := mountsBelow(s.mnt); err != nil || len(all) > 0 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}
