package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/fs/mounts"
)

// tied gives a command a pipe as standard input, and returns the end that a program keeps.
func tied(t *testing.T, c *exec.Cmd) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	c.Stdin = r
	return w
}

// gone waits until nothing is mounted, and returns the files of the session's state.
func (s *session) gone(mountpoint string) (logs []string) {
	s.t.Helper()
	eventually(s.t.Fatalf, func() error {
		if _, found, err := mounts.Top(mountpoint); found || err != nil {
			return fmt.Errorf("still mounted, %v", err)
		}
		logs, _ = filepath.Glob(filepath.Join(s.dir, "run", "dequantfs", "*"))
		if len(recordsOf(filepath.Join(s.dir, "run", "dequantfs"), mountpoint)) > 0 {
			return errors.New("its process still runs")
		}
		return nil
	})
	return logs
}

func TestAMountEndsWithItsProgram(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	made := filepath.Join(s.dir, "made")
	at := filepath.Join(made, "mnt")
	c := s.command("mount", "--until-eof", s.source, at)
	w := tied(t, c)
	s.output(c)
	if m, found, err := mounts.Top(at); !found || err != nil {
		t.Fatalf("it is not mounted: %v, %v", m, err)
	}
	w.Close()
	eventually(t.Fatalf, func() error {
		logs := s.gone(at)
		if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) || len(logs) > 0 {
			return fmt.Errorf("left behind: %v, %v", err, logs)
		}
		return nil
	})
}

func TestAMountThatEndsLeavesWhatItDidNotMake(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	c := s.command("mount", "--until-eof", s.source, s.mnt)
	w := tied(t, c)
	s.output(c)
	w.Close()
	eventually(t.Fatalf, func() error {
		logs := s.gone(s.mnt)
		_, err := os.Stat(s.mnt)
		if err != nil || len(logs) != 1 || filepath.Ext(logs[0]) != ".log" {
			return fmt.Errorf("the mountpoint: %v; state: %v", err, logs)
		}
		return nil
	})
}

func TestAMountThatFailsLeavesNoLog(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	c := s.command("mount", "--until-eof", filepath.Join(s.dir, "none"), s.mnt)
	tied(t, c)
	if err := c.Run(); err == nil {
		t.Error("it is mounted")
	}
	if logs := s.gone(s.mnt); len(logs) > 0 {
		t.Errorf("left behind: %v", logs)
	}
}

func TestAServerEndsWithItsProgram(t *testing.T) {
	s := newSession(t)
	c := s.command("serve", "--until-eof", "--listen", ":0", "--layout", "hf", s.source)
	w := tied(t, c)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		if said = append(said, lines.Text()); lines.Text() == "ready" {
			w.Close()
		}
	}
	if err := c.Wait(); err != nil || len(said) != 2 ||
		!strings.HasPrefix(said[0], "HF_ENDPOINT=http://127.0.0.1:") {
		t.Errorf("it said %q, %v", said, err)
	}
}
