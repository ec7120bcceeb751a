package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A first session is what a new user types on a machine that lacks something: the mount that fails,
// its exact message, and the way out of that message, which is then typed as it was printed.
//
// The script of the shell runs in a mount namespace of its own, with the program in PATH. root and
// user type a line; the user has no rights. type_the N types the Nth command of the last
// hint, with a program in place of COMMAND and a folder in place of DIRECTORY.
const firstSession = `
PATH=$(dirname "$1"):/usr/sbin:/sbin:$PATH
exec 2>&1
root() { show "$@"; }
user() { show setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
other() { show setpriv --reuid 65533 --regid 65533 --clear-groups "$@"; }
container() { show setpriv --bounding-set -sys_admin "$@"; }
show() {
	status=0
	"$@" >$SAID 2>&1 || status=$?
	grep -v 'is not set in the environment' $SAID || true
	if test $status != 0; then echo "status $status"; fi
}
type_the() {
	as=$1
	way=$(grep 'hint: ' $SAID | sed 's/.*hint: //' | tr ';' '\n' | sed -n "$2p" | sed '
		s|^ *||; s|^.*: ||; s|.*, or dequantfs|dequantfs|; s|sudo ||
		s|COMMAND {}|head -c 1 {}/config.json|; s|DIRECTORY|'"$OUT|")
	echo "\$ $way"
	$as sh -c "$way"
}
`

// first runs the script of a first session and returns what it prints. Paths are DIR.
func (s *session) first(setup, script string) string {
	s.t.Helper()
	program := s.ofUser()
	c := s.inMountNamespace(program, withDevice+setup+firstSession+script)
	c.Env = append(c.Env, "SAID="+s.dir+"/said", "OUT="+s.dir+"/out")
	out, err := c.CombinedOutput()
	text := strings.ReplaceAll(string(out), s.dir, "DIR")
	if err != nil {
		s.t.Fatalf("%v\n%s", err, text)
	}
	return temporaryName.ReplaceAllString(text, "-N")
}

var temporaryName = regexp.MustCompile(`(-run|-trial)-[0-9]+`)

// quietly are the notes of a mount that no first session is about.
var quietly = regexp.MustCompile(`(?m)^dequantfs: (warning: .*(reads do not notice|other users).*|` +
	`the kernel's read-ahead .*|.*/mnt/ is for .*|computed tensors .*|layout .*)\n`)

func TestFirstSessions(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	const withoutDevice = "mount -t tmpfs none /dev\nmknod -m 666 /dev/null c 1 3\n"
	const without = "without FUSE: dequantfs serve DIR/model, " +
		"or dequantfs export DIR/model DIRECTORY"
	for name, c := range map[string]struct{ setup, script, want string }{
		"root": {"", `
root dequantfs mount -q "$2" "$3"
root head -c 1 "$3/hf/config.json"
root dequantfs umount "$3"
root dequantfs run -q "$2" -- head -c 1 {}/config.json`, "{\n{\n"},
		"a user with fuse3": {"", `
user dequantfs mount -q "$2" "$3"
user head -c 1 "$3/hf/config.json"
root head -c 1 "$3/hf/config.json"
user dequantfs umount "$3"
user dequantfs run -q "$2" -- head -c 1 {}/config.json`,
			"{\nhead: cannot open 'DIR/mnt/hf/config.json' for reading: Permission denied\n" +
				"status 1\n{\n"},
		"a user without fuse3": {withoutHelper, `
user dequantfs mount -q "$2" "$3"
type_the user 2`, "dequantfs: fusermount3 is not installed, " +
			"and this user may not mount without it\n" +
			"dequantfs: hint: sudo apt install fuse3 (dnf install fuse3, apk add fuse3), " +
			"or mount as root; for one command: dequantfs run DIR/model -- COMMAND {}; " +
			without + "\nstatus 1\n" +
			"$ dequantfs run DIR/model -- head -c 1 {}/config.json\n{\n"},
		"a user without access to the device": {"chmod 600 /dev/fuse\n", `
user dequantfs mount -q "$2" "$3"
type_the root 1
user dequantfs run -q "$2" -- head -c 1 {}/config.json`,
			"dequantfs: this user may not use the FUSE device: " +
				"open /dev/fuse: permission denied\n" +
				"dequantfs: hint: ask for access to /dev/fuse: sudo chmod 666 /dev/fuse; in a " +
				"container docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE; " + without +
				"\nstatus 1\n$ chmod 666 /dev/fuse\n{\n"},
		"no device": {withoutDevice, `
root dequantfs mount -q "$2" "$3"
root dequantfs run -q "$2" -- true
type_the root 3
root head -c 1 "$OUT/config.json"`, strings.Repeat(
			"dequantfs: there is no FUSE here: open /dev/fuse: no such file or directory\n"+
				"dequantfs: hint: sudo modprobe fuse; in a container docker run "+
				"--device /dev/fuse --cap-add SYS_ADMIN IMAGE; "+without+"\nstatus 1\n", 2) +
			"$ dequantfs export DIR/model DIR/out\n{\n"},
		"no CAP_SYS_ADMIN": {"chown 0:0 \"$XDG_RUNTIME_DIR\"\n", `
container dequantfs mount -q "$2" "$3"
type_the container 2
container dequantfs doctor
container dequantfs mount -q "$2" "$3"
type_the container 3
root head -c 1 "$OUT/config.json"`, "dequantfs: nothing in this container may mount: it lacks CAP_SYS_ADMIN\n" +
			"dequantfs: hint: docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE; for one " +
			"command: dequantfs run DIR/model -- COMMAND {}; " + without + "\nstatus 1\n" +
			"$ dequantfs run DIR/model -- head -c 1 {}/config.json\n{\n" +
			"broken  mounting  nothing in this container may mount: it lacks CAP_SYS_ADMIN\n" +
			"ok  run  dequantfs run SOURCE -- COMMAND works all the same: it mounts in a user " +
			"namespace\nstatus 1\n" +
			"dequantfs: nothing in this container may mount: it lacks CAP_SYS_ADMIN\n" +
			"dequantfs: hint: docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE; for one " +
			"command: dequantfs run DIR/model -- COMMAND {}; " + without + "\nstatus 1\n" +
			"$ dequantfs export DIR/model DIR/out\n{\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := newSession(t).first(c.setup, c.script)
			got = exported.ReplaceAllString(quietly.ReplaceAllString(got, ""), "")
			if strings.Contains(got, "works all the same") {
				got = onlyMounting(got)
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// exported are the lines of an export.
var exported = regexp.MustCompile(`(?m)^(dequantfs: ([0-9]+ files to write|.* written, ).*|` +
	`.*: [0-9]+ files written, .*)\n`)

// onlyMounting leaves of a doctor's findings those about mounting, with single spaces.
func onlyMounting(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		finding := regexp.MustCompile(` {2,}`).ReplaceAllString(line, "  ")
		switch {
		case strings.HasPrefix(finding, "broken  mounting"), strings.Contains(finding, "ok  run"):
			kept = append(kept, finding)
		case strings.HasPrefix(finding, "ok  "), strings.HasPrefix(finding, "could be"),
			strings.HasPrefix(finding, "  "):
		default:
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestFirstSessionOnAReadOnlyRoot: only /dev/shm can be written, as in a container with
// --read-only.
func TestFirstSessionOnAReadOnlyRoot(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	got := s.first(`
mount -t tmpfs none /dev/shm
mount -o remount,bind,ro "$(stat -c %m "$2")"
mount -o remount,bind,ro /
SAID=/dev/shm/said
OUT=/dev/shm/out
unset TMPDIR
`, `
root touch "$3/x"
root dequantfs mount -q "$2" "$3/new"
root dequantfs mount -q "$2" "$3"
root head -c 1 "$3/hf/config.json"
root dequantfs umount "$3"
root dequantfs run -q "$2" -- head -c 1 {}/config.json
root dequantfs demo -q
root ls -A /dev/shm`)
	want := "touch: cannot touch 'DIR/mnt/x': Read-only file system\nstatus 1\n" +
		"dequantfs: mkdir DIR/mnt/new: read-only file system\n" +
		"dequantfs: hint: choose a folder that exists, such as /mnt, or one below /dev/shm\n" +
		"status 1\n{\n{\n"
	if !strings.HasPrefix(got, want) || !strings.Contains(got, "\nproved: ") ||
		!strings.HasSuffix(got, "\ndequantfs-0\nsaid\n") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFirstSessionOfTwoUsers: a mount is for one user until fuse.conf lets users share theirs.
func TestFirstSessionOfTwoUsers(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	s := newSession(t)
	got := s.first(`
cp /etc/fuse.conf "$3/../fuse.conf"
sed -i '/^user_allow_other/d' "$3/../fuse.conf"
mount --bind "$3/../fuse.conf" /etc/fuse.conf
`, `
export XDG_RUNTIME_DIR=
user dequantfs mount -q "$2" "$3"
other head -c 1 "$3/hf/config.json"
other dequantfs mount -q "$2" "$3"
user dequantfs umount "$3"
other dequantfs mount -q "$2" "$3"
user dequantfs mount -q --allow-other "$2" "$3"
type_the root 1
user dequantfs mount -q --allow-other "$2" "$3"
other head -c 1 "$3/hf/config.json"
user dequantfs umount "$3"`)
	const without = "without FUSE: dequantfs serve DIR/model, " +
		"or dequantfs export DIR/model DIRECTORY"
	const own = "dequantfs: hint: choose a directory of your own as the mountpoint: " +
		"dequantfs mount DIR/model ~/view"
	want := "head: cannot open 'DIR/mnt/hf/config.json' for reading: Permission denied\n" +
		"status 1\n" +
		"dequantfs: DIR/mnt: another user has mounted a fuse.dequantfs there\n" + own +
		"\nstatus 1\n" +
		"dequantfs: fusermount3: failed to chdir to mountpoint: Permission denied\n" + own +
		"; for one command: dequantfs run DIR/model -- COMMAND {}; " + without + "\nstatus 1\n" +
		"dequantfs: fusermount3: option allow_other only allowed if 'user_allow_other' is set in " +
		"/etc/fuse.conf\ndequantfs: hint: echo user_allow_other | sudo tee -a /etc/fuse.conf; " +
		"or leave --allow-other out; " + without + "\nstatus 1\n" +
		"$ echo user_allow_other | tee -a /etc/fuse.conf\nuser_allow_other\n{\n"
	if got = quietly.ReplaceAllString(got, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTheLastWayOutServes types dequantfs serve where there is no FUSE, and reads a file as a
// client does.
func TestTheLastWayOutServes(t *testing.T) {
	requireRoot(t)
	s := newSession(t)
	program := s.ofUser()
	c := s.inMountNamespace(program, `set -e
mount -t tmpfs none /dev
mknod -m 666 /dev/null c 1 3
exec "$1" serve -q "$2" --listen :0`)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	at := strings.TrimPrefix(words[0], "HF_ENDPOINT=")
	answer, err := http.Get(at + "/" + words[3] + "/resolve/main/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(text), "deepseek_v3") {
		t.Errorf("%s: %.100s, %v", line, text, err)
	}
	if _, err := os.Stat(filepath.Join(s.mnt, "config.json")); err == nil {
		t.Error("it is mounted")
	}
}
