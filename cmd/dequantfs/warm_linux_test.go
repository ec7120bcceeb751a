package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/pagecache"
	"github.com/dequantfs/dequantfs/testdata/cgroup"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// residence is the number of bytes of a file in memory, in whole pages, as fincore of util-linux
// counts them.
func residence(t *testing.T, name string) int64 {
	t.Helper()
	out, err := exec.Command("fincore", "--bytes", "--noheadings", "--output", "RES", name).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("fincore is not installed")
	}
	n, bad := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil || bad != nil {
		t.Fatalf("%v, %q", err, out)
	}
	return n
}

// warm runs the command with --json. It may fail.
func (s *session) warm(args ...string) (facts warmJSON, said string, err error) {
	s.t.Helper()
	c := s.command(append([]string{"warm", "--json"}, args...)...)
	return s.facts(c)
}

func (s *session) facts(c *exec.Cmd) (facts warmJSON, said string, err error) {
	s.t.Helper()
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err = c.Run()
	if bad := json.Unmarshal(out.Bytes(), &facts); bad != nil {
		s.t.Fatalf("%v: %v, %s%s", c.Args, bad, &out, &stderr)
	}
	return facts, stderr.String(), err
}

// mountLarge mounts a checkpoint with experts of DeepSeek-V3's size, in holes.
func (s *session) mountLarge(flags ...string) {
	s.t.Helper()
	o := synth.Options{Layers: 2, Experts: 4, Hidden: 7168, ExpertIntermediate: 2048,
		DenseIntermediate: 18432, Vocab: 1024, Shards: 3}
	if err := errors.Join(os.RemoveAll(s.source), synth.Holes(o).Write(s.source)); err != nil {
		s.t.Fatal(err)
	}
	s.run(append(append([]string{"mount", "-q"}, flags...), s.source, s.mnt)...)
}

// TestWarmAgreesWithFincore brings one file of several, and compares --check with fincore.
func TestWarmAgreesWithFincore(t *testing.T) {
	requireFUSE(t)
	for _, readAhead := range []string{"16MiB", "128KiB"} { // root's, and that of other users
		t.Run(readAhead, func(t *testing.T) {
			s := newSession(t)
			s.mountLarge("--layout", "hf", "--read-ahead", readAhead)
			second := filepath.Join(s.mnt, "model-00002-of-000003.safetensors")
			if _, said, err := s.warm(second); err != nil {
				t.Fatal(err, said)
			}
			eventually(t.Fatalf, func() error {
				facts, said, err := s.warm("--check", s.mnt)
				if err != nil || len(facts.Files) != 3 {
					t.Fatal(err, said, facts)
				}
				for i, f := range facts.Files {
					if n := residence(t, f.File); *f.InMemory > n || n-*f.InMemory >= 4096 {
						return errors.New(f.File + ": fincore counts " + strconv.FormatInt(n, 10) +
							", not " + strconv.FormatInt(*f.InMemory, 10))
					}
					// Other programs may take a little of the memory in the meantime.
					if in := float64(*f.InMemory) / float64(f.Bytes); (i == 1) != (in > 0.9) ||
						i != 1 && in > 0 {
						t.Fatalf("%s: %.3f of it is in memory", f.File, in)
					}
				}
				return nil
			})
		})
	}
}

// TestWarmBringsJustTheTensors: besides the pages of the tensors, only those of headers are in
// memory.
func TestWarmBringsJustTheTensors(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.mountLarge("--layout", "hf")
	const pattern = `model\.layers\.1\.mlp\.experts\.[13]\.up_proj`
	facts, said, err := s.warm(s.mnt, "--include", pattern)
	if err != nil {
		t.Fatal(err, said)
	}
	names, err := filepath.Glob(filepath.Join(s.mnt, "*.safetensors"))
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	var in, wanted, headers int64
	for _, name := range names {
		in += residence(t, name)
	}
	for _, name := range names { // which brings more into memory
		tensors, header := pagesOf(t, name, regexp.MustCompile("^"+pattern))
		wanted, headers = wanted+tensors, headers+header
	}
	if wanted < 2*7168*2048*2 || facts.Bytes != wanted || facts.Read > wanted {
		t.Errorf("%d bytes are wanted and %d were read, not %d", facts.Bytes, facts.Read, wanted)
	}
	if in > wanted+headers || in < wanted*9/10 {
		t.Errorf("%d bytes are in memory, of tensors with %d and headers with %d", in, wanted,
			headers)
	}
}

// pagesOf returns the bytes of the pages of some tensors of a file, and of its header.
func pagesOf(t *testing.T, name string, which *regexp.Regexp) (tensors, header int64) {
	t.Helper()
	h := headerOf(t, name)
	const page = 4096
	pages := map[int64]bool{}
	for _, x := range h.Tensors {
		for at := (h.DataOffset + x.Begin) / page; which.MatchString(x.Name) &&
			at*page < h.DataOffset+x.End; at++ {
			pages[at] = true
		}
	}
	return int64(len(pages)) * page, (h.DataOffset + page - 1) / page * page
}

// TestWarmStopsAtTheLimitOfItsCgroup: it fails, says what is in memory, and the kernel has not
// dropped what it brought.
func TestWarmStopsAtTheLimitOfItsCgroup(t *testing.T) {
	requireFUSE(t)
	const limit = 256 << 20
	group, err := cgroup.New(limit)
	if err != nil {
		t.Skip(err)
	}
	s := newSession(t)
	s.mountLarge("--layout", "hf")
	t.Cleanup(func() {
		s.run("umount", s.mnt) // its pages are charged to the group
		if err := group.Remove(); err != nil {
			t.Error(err)
		}
	})
	facts, said, err := s.facts(s.as(exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`,
		group.Procs(), s.program, "warm", "--json", s.mnt)))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	for _, part := range []string{"memory is full: /sys/fs/cgroup",
		"(256 MiB) has no room for more", "hint: name fewer files"} {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %q: %s", part, said)
		}
	}
	if !strings.HasPrefix(facts.Stopped, "memory is full") || facts.Read > limit ||
		facts.Read < limit/2 {
		t.Errorf("%d bytes were read, and it stopped because of %q", facts.Read, facts.Stopped)
	}
	if *facts.InMemory < facts.Read*9/10 || *facts.InMemory >= facts.Bytes {
		t.Errorf("%d of %d read bytes are in memory, of %d", *facts.InMemory, facts.Read,
			facts.Bytes)
	}
	// People get it in words.
	c := s.as(exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`, group.Procs(), s.program,
		"warm", "-q", s.mnt))
	out, _ := c.CombinedOutput()
	for _, part := range []string{" in memory; ", "not in memory: " + s.mnt + "/model-0000",
		"dequantfs: memory is full"} {
		if !strings.Contains(string(out), part) {
			t.Errorf("it does not say %q: %s", part, out)
		}
	}
}

// TestWarmThatIsInterruptedSaysWhatIsThere interrupts at the first line.
func TestWarmThatIsInterruptedSaysWhatIsThere(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.mountLarge("--layout", "native")
	var out bytes.Buffer
	c := s.command("warm", s.mnt)
	c.Stdout = &out
	stderr, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 10)
	_, err = io.ReadFull(stderr, first)
	if err = errors.Join(err, c.Process.Signal(unix.SIGINT)); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(stderr)
	err = c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != interruptedStatus ||
		!strings.HasSuffix(string(rest), "dequantfs: interrupted\n") {
		t.Errorf("%v, %s", err, rest)
	}
	for _, part := range []string{" in memory; ", "not in memory: "} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("it does not say %q: %s", part, &out)
		}
	}
}

// TestWarmNoticesThatItsMountIsGone: it would otherwise keep a detached mount alive.
func TestWarmNoticesThatItsMountIsGone(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", "-q", "--layout", "hf", s.source, s.mnt)
	names, err := filepath.Glob(filepath.Join(s.mnt, "*.safetensors"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	gone, err := watchMounts([]pagecache.File{{Name: names[0]}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(names[0]) // as warm has it
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := gone(); err != nil {
		t.Error(err)
	}
	if out, err := s.command("umount", s.mnt).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "used by") {
		t.Errorf("umount: %v, %s", err, out)
	}
	s.run("umount", "--lazy", s.mnt)
	if err := gone(); err == nil || err.Error() != s.mnt+" was unmounted" {
		t.Errorf("after umount --lazy: %v", err)
	}
	gone, err = watchMounts([]pagecache.File{{Name: filepath.Join(s.source, "config.json")}})
	if err != nil || gone() != nil {
		t.Errorf("of a plain file: %v, %v", err, gone())
	}
}

func TestWarmDrawsABarOnATerminal(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", "-q", "--layout", "hf", s.source, s.mnt)
	for name, c := range map[string]struct {
		flags []string
		term  string
		bar   bool
		lines bool
	}{
		"bar":           {nil, "xterm", true, false},
		"dumb terminal": {nil, "dumb", false, true},
		"quiet":         {[]string{"--quiet"}, "xterm", false, false},
		"JSON":          {[]string{"--json"}, "xterm", false, false},
	} {
		screen, end := terminal(t)
		w := s.command(append([]string{"warm", s.mnt}, c.flags...)...)
		w.Env = append(w.Env, "TERM="+c.term)
		w.Stderr = screen
		text := make(chan string)
		go func() {
			all, _ := io.ReadAll(end)
			text <- string(all)
		}()
		printed, err := w.Output()
		screen.Close()
		drawn := <-text
		bar := regexp.MustCompile(`[0-9.]+[KM]iB of [0-9.]+[KM]iB .* left`).MatchString(drawn)
		lines := strings.Contains(drawn, "dequantfs: ")
		if err != nil || bar != c.bar || lines != c.lines ||
			!strings.Contains(string(printed), "memory") {
			t.Errorf("%s: %v, %q, %q", name, err, drawn, printed)
		}
	}
}

// TestStatusSaysWhatIsInMemory compares status with warm --check, for one of two layouts.
func TestStatusSaysWhatIsInMemory(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	s.run("mount", "-q", "--layout", "hf,native", s.source, s.mnt)
	m := s.status().Memory
	if m == nil || m.Bytes != 0 || m.Of == 0 || !m.Exact {
		t.Fatalf("before: %+v", m)
	}
	if _, said, err := s.warm(filepath.Join(s.mnt, "native")); err != nil {
		t.Fatal(err, said)
	}
	eventually(t.Fatalf, func() error {
		facts, said, err := s.warm("--check", s.mnt)
		if err != nil {
			t.Fatal(err, said)
		}
		m := s.status().Memory
		if m == nil || m.Bytes != *facts.InMemory || m.Of != facts.Bytes || !m.Exact {
			return fmt.Errorf("%+v, and warm counts %d of %d", m, *facts.InMemory, facts.Bytes)
		}
		if m.Bytes < m.Of/3 || m.Bytes > m.Of*2/3 {
			return fmt.Errorf("%+v for one of two layouts", m)
		}
		return nil
	})
	if m := s.statusOf("--no-memory").Memory; m != nil {
		t.Errorf("with --no-memory: %+v", m)
	}
}

// TestStatusAnswersIfAMountDoesNot: a mount that is asked already is not asked again, and has no
// number.
func TestStatusAnswersIfAMountDoesNot(t *testing.T) {
	var a memoryAsker
	if !a.begin("/mnt/a") || a.begin("/mnt/a") || !a.begin("/mnt/b") {
		t.Error("a mount is asked twice at once, or another one is not")
	}
	all := []mountState{{State: stateAlive}, {State: stateDead}}
	all[0].Mountpoint, all[1].Mountpoint = "/mnt/a", "/mnt/c"
	a.ask(t.Context(), all)
	if all[0].Memory != nil || all[1].Memory != nil {
		t.Errorf("%v, %v", all[0].Memory, all[1].Memory)
	}
	a.end("/mnt/a")
	if !a.begin("/mnt/a") {
		t.Error("a mount that has answered is not asked again")
	}
}

func TestMemoryInWords(t *testing.T) {
	for want, m := range map[string]*memoryState{
		"-": nil, "0B": {Exact: true}, "3MiB": {3 << 20, 4 << 20, true},
		"~1GiB": {1 << 30, 1 << 40, false},
	} {
		if got := m.String(); got != want {
			t.Errorf("%+v: %s", m, got)
		}
	}
}
