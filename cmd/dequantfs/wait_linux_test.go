package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// waiting starts a command that waits for a download, and returns the lines that it says.
func (s *session) waiting(args ...string) (*exec.Cmd, *bufio.Scanner) {
	s.t.Helper()
	c := s.command(args...)
	stderr, err := c.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Process.Kill() })
	return c, bufio.NewScanner(stderr)
}

// says requires the next line.
func says(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("it says %q, want %q", lines.Text(), want)
	}
}

// TestMountWaitsForADownload finishes a download file by file. Each time it is seen that nothing is
// mounted yet.
func TestMountWaitsForADownload(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	away := t.TempDir()
	files := []string{"config.json", "model.safetensors.index.json",
		"model-00002-of-000002.safetensors", "model-00001-of-000002.safetensors"}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		move(filepath.Join(s.source, f), filepath.Join(away, f))
	}
	blob := filepath.Join(s.source, ".cache", "huggingface", "download", "x.incomplete")
	if err := errors.Join(os.MkdirAll(filepath.Dir(blob), 0o700),
		os.WriteFile(blob, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c, lines := s.waiting("mount", "--wait", "--layout", "hf", s.source, s.mnt)
	const waits = "dequantfs: waiting for the download: "
	for i, want := range []string{
		s.source + ": config.json: missing, and no *.safetensors: not a checkpoint's folder: " +
			"a download into this folder is not finished: run its hf download again",
		s.source + ": no model.safetensors.index.json and no *.safetensors: " +
			"a download into this folder is not finished: run its hf download again",
		s.source + ": 0 of 2 shards",
		s.source + ": 1 of 2 shards",
		"it has not finished " + blob + " (remove that if no download runs)",
	} {
		says(t, lines, waits+want)
		if _, found, err := mounts.Top(s.mnt); found || err != nil {
			t.Fatalf("%q: it is mounted, %v", want, err)
		}
		if i < len(files) {
			move(filepath.Join(away, files[i]), filepath.Join(s.source, files[i]))
		}
	}
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "/mnt/ is for transformers") {
		t.Errorf("it says %q", lines.Text())
	}
	for lines.Scan() {
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(s.mnt, "config.json")); err != nil {
		t.Error(err)
	}
	s.run("umount", s.mnt)
}

func TestWaitingEnds(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	shard := filepath.Join(s.source, "model-00001-of-000002.safetensors")
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mount", s.source, s.mnt}, {"mount", "-f", s.source, s.mnt},
		{"run", s.source, "--", "true"},
	} {
		args := append([]string{command[0], "--wait"}, command[1:]...)
		c, lines := s.waiting(args...)
		says(t, lines, "dequantfs: waiting for the download: "+s.source+": 1 of 2 shards")
		if err := c.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		says(t, lines, "dequantfs: interrupted")
		if err := c.Wait(); c.ProcessState.ExitCode() != interruptedStatus {
			t.Errorf("%v: %v", args, err)
		}
		args[1] = "--wait=10ms"
		c, lines = s.waiting(args...)
		const late = "dequantfs: the download is not complete after 10ms: "
		for lines.Scan() && strings.HasPrefix(lines.Text(), "dequantfs: waiting") {
		}
		if !strings.HasPrefix(lines.Text(), late) {
			t.Errorf("%v: it says %q", args, lines.Text())
		}
		if err := c.Wait(); c.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: %v", args, err)
		}
	}
	if left, _ := mountsBelow(s.dir); len(left) > 0 {
		t.Errorf("it is mounted at %v", left)
	}
}

// A source that no download mends is refused at once, and one on another machine needs none.
func TestWaitingRefuses(t *testing.T) {
	s := newSession(t)
	if err := os.WriteFile(filepath.Join(s.source, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, status := range map[string]int{s.source: 1, "hf://org/name": 2} {
		c := s.command("mount", "--wait", source, s.mnt)
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != status || strings.Contains(string(out), "waiting") {
			t.Errorf("%s: %v\n%s", source, err, out)
		}
	}
}

func TestTimesToWait(t *testing.T) {
	for text, want := range map[string]waitFlag{
		forever: {on: true}, "30m": {true, 30 * time.Minute}, "": {}, "0": {}, "-1s": {}, "x": {},
		"5": {},
	} {
		var w waitFlag
		if err := w.Set(text); w != want || (err == nil) != want.on {
			t.Errorf("%q: %+v, %v", text, w, err)
		}
		var again waitFlag
		if w.on && (again.Set(w.String()) != nil || again != w) {
			t.Errorf("%q is passed on as %s", text, w.String())
		}
	}
}
