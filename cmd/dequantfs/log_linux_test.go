package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogToAPipeHoldsUpNothing has a named pipe as the log: without a reader, with one that does
// not read, and with one that goes away.
func TestLogToAPipeHoldsUpNothing(t *testing.T) {
	requireFUSE(t)
	for _, foreground := range []bool{false, true} {
		s := newSession(t)
		fifo := filepath.Join(s.dir, "log")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"mount", "--layout", "hf", "--log-file", fifo, s.source, s.mnt}
		if foreground {
			args = append(args, "-f")
		}
		var exit *exec.ExitError
		out, err := s.command(args...).CombinedOutput()
		if !errors.As(err, &exit) || !strings.Contains(string(out),
			fifo+": this named pipe has no reader") {
			t.Fatalf("without a reader: %v, %s", err, out)
		}

		reader, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil { // until it is full
			_, err = unix.Write(int(reader.Fd()), make([]byte, 4096))
		}
		if err := unix.SetNonblock(int(reader.Fd()), true); err != nil {
			t.Fatal(err)
		}
		c := s.command(args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		s.readable()
		reader.Close()
		s.run("umount", s.mnt)
		if err := c.Wait(); err != nil {
			t.Errorf("with a reader that goes away: %v", err)
		}
	}
}

// readable waits until a file of the mount can be read.
func (s *session) readable() {
	s.t.Helper()
	eventually(s.t.Fatalf, func() error {
		_, err := os.ReadFile(filepath.Join(s.mnt, "config.json"))
		return err
	})
}

func TestLogLinesThatNobodyTakesAreCounted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log, end := unhurried(w)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const lines = 3 * logLines
	for range lines {
		if n, err := log.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := make(chan string)
	go func() {
		kept, lost := 0, ""
		for in := bufio.NewScanner(r); in.Scan(); {
			if strings.HasPrefix(in.Text(), "x") {
				kept++
			} else {
				lost += in.Text()
			}
		}
		if kept < logLines || kept > lines {
			t.Errorf("%d of %d lines", kept, lines)
		}
		got <- lost
	}()
	end()
	w.Close()
	if lost := <-got; !strings.Contains(lost, "lines of the log were lost") {
		t.Errorf("what was lost is not said: %q", lost)
	}
}
