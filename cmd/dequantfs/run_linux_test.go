package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// running is a run command whose command has started.
type running struct {
	*exec.Cmd
	s     *session
	view  string         // the mountpoint
	child int            // the process of the command
	lines *bufio.Scanner // of its standard output
	said  *bytes.Buffer  // its standard error
}

// start runs a script of the shell in a view. The script begins with a line that names the view and
// its process.
func (s *session) start(c *exec.Cmd) *running {
	s.t.Helper()
	r := &running{Cmd: c, s: s, said: new(bytes.Buffer)}
	out, err := c.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	c.Stderr = r.said
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Process.Kill() })
	r.lines = bufio.NewScanner(out)
	if !r.lines.Scan() {
		_ = c.Wait()
		s.t.Fatalf("%v said nothing: %s", c.Args, r.said)
	}
	if _, err := fmt.Sscan(r.lines.Text(), &r.child, &r.view); err != nil {
		s.t.Fatalf("%q: %v", r.lines.Text(), err)
	}
	return r
}

// script is a run command of a script.
func (s *session) script(text string) *exec.Cmd {
	return s.command("run", "-q", s.source, "--", "sh", "-c", "echo $$ {}\n"+text)
}

// gone waits until nothing of a run is left: no process, no mount, no folder and no record.
func (r *running) gone() {
	r.s.t.Helper()
	eventually(r.s.t.Fatalf, func() error {
		if !ended(r.child) {
			return errors.New("the command lives")
		}
		if _, err := os.Lstat(r.view); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is left: %v", r.view, err)
		}
		if left := recordsOf(filepath.Join(r.s.dir, "run", "dequantfs"), r.view); len(left) > 0 {
			return fmt.Errorf("records are left: %v", left)
		}
		return nil
	})
}

func TestRunPassesSignalsOn(t *testing.T) {
	requireFUSE(t)
	for name, signal := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP,
		"QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t)
			for _, trap := range []string{"trap 'exit 3' " + name, "true"} {
				c := s.script(trap + "\necho trapped\nwhile :; do sleep 0.01; done")
				c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
				r := s.start(c)
				if r.lines.Scan(); r.lines.Text() != "trapped" {
					t.Fatalf("%q", r.lines.Text())
				}
				if err := c.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				_ = c.Wait()
				want := 3
				if trap == "true" {
					want = 128 + int(signal)
				}
				if got := c.ProcessState.ExitCode(); got != want {
					t.Errorf("%s: status %d, want %d: %s", trap, got, want, r.said)
				}
				r.gone()
			}
		})
	}
}

// TestKeysOfTheTerminalReachTheCommandOnce types Ctrl-C at a terminal, which sends it to all
// processes of its foreground.
func TestKeysOfTheTerminalReachTheCommandOnce(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	screen, end := terminal(t)
	defer end.Close()
	c := s.script("n=0\ntrap 'n=$((n+1))' INT\ntrap 'exit $n' TERM\necho trapped\n" +
		"while :; do sleep 0.01; done")
	c.Stdin = screen
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	r := s.start(c)
	screen.Close()
	if r.lines.Scan(); r.lines.Text() != "trapped" {
		t.Fatalf("%q", r.lines.Text())
	}
	if _, err := end.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	eventually(t.Fatalf, func() error { // all processes of the group have taken it
		for _, pid := range []int{c.Process.Pid, r.child} {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				return err
			}
			if !bytes.Contains(status, []byte("ShdPnd:\t0000000000000000")) {
				return fmt.Errorf("process %d has not taken it", pid)
			}
		}
		return nil
	})
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if got := c.ProcessState.ExitCode(); got != 1 {
		t.Errorf("the command got %d signals: %s", got, r.said)
	}
	r.gone()
}

// TestAKilledRunLeavesNothing kills each process of a run while a file of the view is open.
func TestAKilledRunLeavesNothing(t *testing.T) {
	requireFUSE(t)
	const script = "exec 9< {}/config.json; echo open; while :; do sleep 0.01; done"
	t.Run("the first", func(t *testing.T) {
		s := newSession(t)
		r := s.start(s.script(script))
		if err := r.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = r.Wait()
		r.gone()
	})
	t.Run("the server", func(t *testing.T) {
		s := newSession(t)
		r := s.start(s.script("while :; do sleep 0.01; done"))
		pid := s.status().PID
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t.Fatalf, func() error {
			if !ended(pid) {
				return errors.New("it lives")
			}
			return nil
		})
		if err := unix.Kill(r.child, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = r.Wait()
		if got := r.ProcessState.ExitCode(); got != 128+15 ||
			!strings.Contains(r.said.String(), "the process behind the view was killed") {
			t.Errorf("status %d: %s", got, r.said)
		}
		s.run("status") // the record of a killed server goes with it
		r.gone()
	})
	t.Run("a process that is left behind", func(t *testing.T) {
		s := newSession(t)
		r := s.start(s.script(
			"sh -c 'exec 9< {}/config.json >&- 2>&-; sleep 60' & echo $!; sleep 0.2"))
		r.lines.Scan()
		left, err := strconv.Atoi(r.lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Kill(left, unix.SIGKILL)
		if err := r.Wait(); err != nil {
			t.Errorf("%v: %s", err, r.said)
		}
		if !strings.Contains(r.said.String(), "a process uses its view: it gets errors") {
			t.Errorf("it says %q", r.said)
		}
		r.gone()
	})
}

// withDevice is the beginning of a script that runs in a mount namespace of its own: all users may
// open /dev/fuse there, as under udev.
const withDevice = `set -e
mount -t tmpfs none /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
umount -l /mnt
`

// withoutHelper hides fusermount3.
const withoutHelper = `for f in /bin/fusermount3 /bin/fusermount; do
	if test -e $f; then mount --bind /dev/null $f; fi
done
`

// asUser runs a command as a user without rights. In the background asExec keeps its number.
const asUser = "as() { setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; }\n" +
	"asExec() { exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; }\n"

// ofUser gives the folders of a session to that user.
func (s *session) ofUser() (program string) {
	s.t.Helper()
	program = copyProgram(s.t.(*testing.T), s.dir)
	for _, d := range []string{s.dir, filepath.Dir(s.dir), s.source} {
		if err := os.Chmod(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, d := range []string{s.dir, s.mnt, filepath.Join(s.dir, "run")} {
		if err := os.Chown(d, 65534, 65534); err != nil {
			s.t.Fatal(err)
		}
	}
	return program
}

// inMountNamespace runs a script of the shell: $1 is the program, $2 the source, $3 an empty
// folder.
func (s *session) inMountNamespace(program, script string) *exec.Cmd {
	c := s.as(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script,
		"sh", program, s.source, s.mnt))
	c.Env = append(c.Env, "TMPDIR="+s.dir)
	return c
}

// TestRunInAUserNamespace: the command of a user without fusermount3 sees itself as that user,
// without rights, and only it sees the mount. The exit status is passed on through all processes,
// and so are signals.
func TestRunInAUserNamespace(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	program := s.ofUser()
	out := s.output(s.inMountNamespace(program, withDevice+withoutHelper+asUser+`
! as "$1" mount "$2" "$3"
asExec "$1" run -q "$2" --at "$3" -- sh -c 'id -u; id -g; cat /proc/self/uid_map
	grep Cap[PEA] /proc/self/status; ls {}
	"$0" status; mkfifo started; sleep 0.2' "$1" > said &
run=$!
until test -e started; do sleep 0.01; done
if grep " $3 " /proc/self/mounts; then echo 'the mount is seen outside'; exit 1; fi
wait $run
cat said
! as "$1" run -q "$2" -- sh -c 'kill -TERM $$'
as "$1" run -q "$2" -- sh -c 'exit 42' || test $? = 42
rm started
asExec "$1" run -q "$2" -- sh -c 'trap "exit 9" TERM; mkfifo started
	while :; do sleep 0.01; done' &
run=$!
until test -e started; do sleep 0.01; done
kill -TERM $run
wait $run || test $? = 9
echo passed on`))
	for _, want := range []string{"65534\n65534\n", "CapPrm:\t0000000000000000\n",
		"CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "\nconfig.json\n",
		s.mnt + "  alive ", "\npassed on\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "dequantfs-run-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestAKilledRunInAUserNamespaceLeavesNothing kills the first process of a run.
func TestAKilledRunInAUserNamespaceLeavesNothing(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	program := s.ofUser()
	r := s.start(s.inMountNamespace(program, withDevice+withoutHelper+`
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$1" run -q "$2" -- \
	sh -c 'echo $$ {}; exec 9< {}/config.json; while :; do sleep 0.01; done'`))
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.Wait()
	r.gone()
}

// TestServedRunAndServeReadOverANetwork copies the view of a run, and reads what serve sends, from
// the Hub and from an object store. Both are compared with an export of the local source.
func TestServedRunAndServeReadOverANetwork(t *testing.T) {
	requireFUSE(t)
	for _, kind := range []string{"hub", "s3"} {
		t.Run(kind, func(t *testing.T) {
			s := newSession(t)
			exported, copied := filepath.Join(s.dir, "exported"), filepath.Join(s.dir, "copied")
			s.run("export", "--quiet", s.source, exported)
			want := tree(t, exported)
			delete(want, ".dequantfs/manifest.json")
			url, at := storeKinds[kind](t, s.source)
			p := at(url)
			s.output(p.from(s.command("run", "-q", p.source, "--", "cp", "-r", "{}", copied)))
			sameTree(t, tree(t, copied), want)
			for _, v := range p.env {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			h := s.serveHTTP(t, 1, "--layout", "hf", p.source)
			for name, data := range want {
				if status, got := h.ask("/my-model/hf/resolve/main/" + name); status != 200 ||
					!bytes.Equal(got, data) {
					t.Errorf("%s: %d, %d bytes, want %d", name, status, len(got), len(data))
				}
			}
		})
	}
}
