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
var quietly = regexp.MustCompile(`(?m)^dequantfs: (warning: .*other users.*|harmless unless .*|` +
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
root head -c 1 "$OUT/config.json"`, "dequantfs: nothing in this container may mount: " +
			"it lacks CAP_SYS_ADMIN\n" +
			"dequantfs: hint: docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE; for one " +
			"command: dequantfs run DIR/model -- COMMAND {}; " + without + "\nstatus 1\n" +
			"$ dequantfs run DIR/model -- head -c 1 {}/config.json\n{\n" +
			"broken  mounting  nothing in this container may mount: it lacks CAP_SYS_ADMIN\n" +
			"ok  run  dequantfs run SOURCE -- COMMAND works all the same: it mounts in a user " +
			"namespace\nstatus 1\n" +
			"dequantfs: nothing in this container may mount: " +
			"it lacks CAP_SYS_ADMIN\n" +
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

// ownEtc gives a session a copy of /etc, which it may change.
const ownEtc = `cp -a /etc "$3/../etc"
mount --bind "$3/../etc" /etc
`

// withoutTable takes /etc/mtab away, which a minimal system does not have.
const withoutTable = ownEtc + "rm /etc/mtab\n"

// withoutUmount hides umount(8), which unmounts for users.
const withoutUmount = `for f in /bin/umount /usr/bin/umount; do
	if test -e $f; then mount --bind /dev/null $f; fi
done
`

// forgetName takes the user out of /etc/passwd, as docker run --user may. It needs ownEtc.
const forgetName = `sed -i '/:65534:65534:/d' /etc/passwd
echo 'passwd: files' > /etc/nsswitch.conf
`

// onlyMounts puts a helper in place that does not unmount.
const onlyMounts = `cp -p "$(readlink -f /bin/fusermount3)" "$3/../mounts"
cat > "$3/../helper" <<'END'
#!/bin/sh
if test "$1" = -u; then echo 'I do not' >&2; exit 1; fi
exec "$TMPDIR/mounts" "$@"
END
chmod 755 "$3/../helper"
for f in /bin/fusermount3 /bin/fusermount; do
	if test -e $f; then mount --bind "$3/../helper" $f; fi
done
`

// TestNothingDeadIsLeft goes through the ways in which a user may be unable to unmount what
// fusermount3 has mounted. Whatever happens, nothing stays mounted at the end.
func TestNothingDeadIsLeft(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	const without = "without FUSE: dequantfs serve DIR/model, " +
		"or dequantfs export DIR/model DIRECTORY"
	const forOne = "; for one command: dequantfs run DIR/model -- COMMAND {}; " + without
	const cannot = "dequantfs: fusermount3 could not unmount again: " +
		"/etc/mtab does not show the mounts of the kernel\n"
	const show = "ln -sf /proc/self/mounts /etc/mtab"
	const unnamed = "dequantfs: fusermount3: could not determine username\n"
	const named = "give this user a name: echo user65534:x:65534:65534::/:/bin/sh | "
	examined := func(says string) string {
		return "broken  mounting  " + strings.TrimPrefix(says, "dequantfs: ") +
			"ok  run  dequantfs run SOURCE -- COMMAND works all the same: it mounts in a user " +
			"namespace\nstatus 1\n"
	}
	const all = `
user dequantfs mount -q "$2" "$3"
user head -c 1 "$3/hf/config.json"
user dequantfs umount "$3"
user dequantfs mount -q "$2" "$3"
user dequantfs umount --lazy "$3"
user dequantfs mount -q "$2" "$3"
user dequantfs umount --all
user dequantfs run -q "$2" -- head -c 1 {}/config.json
user dequantfs demo -q >"$SAID.demo"
user dequantfs doctor | grep '^ok *mounting'`
	const worked = "{\n{\nok               mounting         a small tree was mounted and read\n"
	const refused = `
user dequantfs mount -q "$2" "$3"
user dequantfs run -q "$2" -- head -c 1 {}/config.json
user dequantfs doctor
user dequantfs demo -q >"$SAID.demo"
user dequantfs mount -q "$2" "$3"
type_the root 1
user dequantfs mount -q "$2" "$3"
user dequantfs umount "$3"`
	for name, c := range map[string]struct{ setup, script, want string }{
		"no /etc/mtab":               {withoutTable, all, worked},
		"an /etc/mtab of long ago":   {withoutTable + "echo / / ext4 rw 0 0 > /etc/mtab\n", all, worked},
		"an /etc/mtab and no umount": {withoutUmount, all, worked},
		"neither": {withoutTable + withoutUmount, refused, cannot +
			"dequantfs: hint: sudo " + show + forOne + "\nstatus 1\n{\n" + examined(cannot) +
			cannot + "dequantfs: hint: sudo " + show + forOne + "\nstatus 1\n$ " + show + "\n"},
		"neither, and mounted by root": {withoutTable + withoutUmount, `
root dequantfs mount -q --allow-other "$2" "$3"
user dequantfs umount "$3"
root dequantfs umount "$3"`, "dequantfs: DIR/mnt: fusermount3: failed to open /etc/mtab: No such " +
			"file or directory: /etc/mtab does not show the mounts of the kernel\n" +
			"dequantfs: hint: sudo " + show + "\nstatus 1\n"},
		"mounted by root": {"", `
root dequantfs mount -q --allow-other "$2" "$3"
user dequantfs umount "$3"
user dequantfs umount --lazy "$3"
root dequantfs umount "$3"`, strings.Repeat("dequantfs: DIR/mnt: fusermount3: entry for DIR/mnt "+
			"not found in /etc/mtab: another user has mounted it\n"+
			"dequantfs: hint: ask that user to unmount it, or unmount it as root\nstatus 1\n", 2)},
		"the helper goes away": {"", `
user dequantfs mount -q "$2" "$3"
` + withoutHelper + `
user dequantfs umount "$3"`, ""},
		"a user without a name": {ownEtc + forgetName, refused, unnamed + "dequantfs: hint: " +
			named + "sudo tee -a /etc/passwd" + forOne + "\nstatus 1\n{\n" + examined(unnamed) +
			unnamed + "dequantfs: hint: " + named + "sudo tee -a /etc/passwd" + forOne +
			"\nstatus 1\n$ " + named[len("give this user a name: "):] + "tee -a /etc/passwd\n" +
			"user65534:x:65534:65534::/:/bin/sh\n"},
		"a user who loses the name": {withoutUmount + ownEtc, `
user dequantfs mount -q "$2" "$3"
` + forgetName + `
user dequantfs umount "$3"
type_the root 1
user dequantfs umount "$3"`, "dequantfs: DIR/mnt: fusermount3: " +
			"could not determine username: this " +
			"user has no name in /etc/passwd\ndequantfs: hint: " + named +
			"sudo tee -a /etc/passwd\nstatus 1\n$ " + named[len("give this user a name: "):] +
			"tee -a /etc/passwd\nuser65534:x:65534:65534::/:/bin/sh\n"},
		"a helper that only mounts": {withoutUmount + onlyMounts, `
user dequantfs run -q "$2" -- head -c 1 {}/config.json
grep -c "$TMPDIR/.* fuse.dequantfs" /proc/self/mounts
at=$(grep -o "$TMPDIR/dequantfs-run[^ ]*" /proc/self/mounts)
root dequantfs umount "$at"`, "dequantfs: warning: DIR/dequantfs-N was mounted, but cannot be " +
			"unmounted again: fusermount3: I do not: exit status 1: sudo umount -l " +
			"DIR/dequantfs-N\n{\n1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			const left = "\ngrep \"$TMPDIR/.* fuse.dequantfs\" /proc/self/mounts || true"
			got := newSession(t).first(c.setup, c.script+left)
			got = quietly.ReplaceAllString(got, "")
			if strings.Contains(got, "works all the same") {
				got = onlyMounting(got)
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestFirstSessionOfAMountThatIsThere mounts twice at a place, as root and for root alone.
func TestFirstSessionOfAMountThatIsThere(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	s := newSession(t)
	got := s.first("", `
root dequantfs mount --layout hf "$2" "$3"
user head -c 1 "$3/config.json"
root dequantfs mount "$2" "$3"
root dequantfs run "$2" --at "$3" -- true
root dequantfs demo "$3"
type_the root 1
root dequantfs mount --layout hf --allow-other "$2" "$3"
user head -c 1 "$3/config.json"
mount -t tmpfs none "$3"
root dequantfs mount "$2" "$3"`)
	const taken = "dequantfs: DIR/mnt: is a mountpoint already (fuse.dequantfs)\n" +
		"dequantfs: hint: dequantfs umount DIR/mnt; or choose another directory\nstatus 1\n"
	const alone = "dequantfs: only root can read this mount: --allow-other lets other users read " +
		"what the source lets them read\n"
	want := alone +
		"head: cannot open 'DIR/mnt/config.json' for reading: Permission denied\nstatus 1\n" +
		strings.Repeat(taken, 3) + "$ dequantfs umount DIR/mnt\n{\n" +
		"dequantfs: DIR/mnt: is a mountpoint already (tmpfs)\n" +
		"dequantfs: hint: choose another directory\nstatus 1\n"
	if got = quietly.ReplaceAllString(got, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestNotesOfAPlainUser: what a plain user is told about each mount is for people, and --quiet
// leaves it out.
func TestNotesOfAPlainUser(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	requireHelper(t)
	s := newSession(t)
	got := s.first("", `
user dequantfs mount --layout hf "$2" "$3"
user dequantfs umount "$3"
echo quiet
user dequantfs mount -q --layout hf "$2" "$3"
user dequantfs umount "$3"`)
	const slower = "dequantfs: the kernel's read-ahead could not be raised, so reading is " +
		"slower: dequantfs doctor says how to raise it\n"
	const harmless = "dequantfs: harmless unless the model is rewritten while it is mounted: "
	notes, quiet, _ := strings.Cut(got, "quiet\n")
	if quiet != "" || !strings.Contains(notes, slower) || strings.Contains(notes, "/sys/") ||
		strings.Contains(notes, "warning") {
		t.Errorf("it says\n%s\nand with --quiet\n%s", notes, quiet)
	}
	if unseen := regexp.MustCompile(`(?m)^.*do not notice.*\n`).FindString(notes); unseen != "" &&
		!strings.HasPrefix(unseen, harmless) {
		t.Errorf("it says %s", unseen)
	}
}
