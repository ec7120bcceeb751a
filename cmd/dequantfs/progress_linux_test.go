package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs/export"
)

// terminal makes a pseudo terminal: the other end reads the text that is written to the screen.
func terminal(t *testing.T) (screen, end *os.File) {
	t.Helper()
	end, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	t.Cleanup(func() { end.Close() })
	if err := unix.IoctlSetPointerInt(int(end.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(end.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	size := &unix.Winsize{Row: 24, Col: 120}
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
	return screen, end
}

// exportTo exports with standard error on a terminal, and returns the drawn and the printed text.
func (s *session) exportTo(dir string, env []string, flags ...string) (drawn, printed string) {
	s.t.Helper()
	screen, end := terminal(s.t.(*testing.T))
	c := s.command(append([]string{"export", s.source, dir}, flags...)...)
	c.Env = append(append(c.Env, "TERM=xterm"), env...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, screen
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	screen.Close()
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(end) // it ends with EIO when the last process has closed the screen
		text <- string(all)
	}()
	err := c.Wait()
	drawn = <-text
	if err != nil {
		s.t.Fatalf("%v: %s", err, drawn)
	}
	return drawn, out.String()
}

// colour is a sequence that sets a colour.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestExportDrawsABarOnATerminal(t *testing.T) {
	s := newSession(t)
	drawn, printed := s.exportTo(filepath.Join(s.dir, "bar"), nil)
	bar := regexp.MustCompile(`[0-9.]+[KM]iB of [0-9.]+[KM]iB .* left`)
	if !bar.MatchString(drawn) || !strings.Contains(drawn, "\r") {
		t.Errorf("no bar in %q", drawn)
	}
	if colour.MatchString(drawn) || strings.Contains(drawn, ".safetensors") {
		t.Errorf("more than a bar: %q", drawn)
	}
	if !strings.Contains(printed, " files written, ") || strings.Count(printed, "\n") != 1 {
		t.Errorf("it printed %q", printed)
	}
}

func TestExportDrawsNoBarWhereItMayNot(t *testing.T) {
	s := newSession(t)
	drawn, _ := s.exportTo(filepath.Join(s.dir, "dumb"), []string{"TERM=dumb"})
	if strings.Contains(drawn, "left") || !strings.Contains(drawn, "dequantfs: model-00001-of-") {
		t.Errorf("on a dumb terminal: %q", drawn)
	}
	if drawn, printed := s.exportTo(filepath.Join(s.dir, "quiet"), nil,
		"--quiet"); drawn != "" || printed == "" {
		t.Errorf("with --quiet: %q, %q", drawn, printed)
	}
	if drawn, _ := s.exportTo(filepath.Join(s.dir, "json"), nil, "--json"); drawn != "" {
		t.Errorf("with --json: %q", drawn)
	}
}

// TestABarThatIsCutShortEnds: after an error, or without any file to write, close does not wait for
// the bar to be full.
func TestABarThatIsCutShortEnds(t *testing.T) {
	screen, end := terminal(t)
	go func() { _, _ = io.Copy(io.Discard, end) }()
	defer screen.Close()
	for _, events := range [][]export.Event{
		nil,
		{{Kind: export.Started}},
		{{Kind: export.Started, Bytes: 100, Files: 2}, {Kind: export.Written, Bytes: 30}},
		{{Kind: export.Started, Bytes: 100, Files: 1}, {Kind: export.Written, Bytes: 100},
			{Kind: export.Finished, Bytes: 100}},
	} {
		var out bytes.Buffer
		b := &exportBar{exportLines: exportLines{out: &out, log: slog.New(slog.DiscardHandler),
			dir: "d"}, screen: screen}
		for _, e := range events {
			b.event(e)
		}
		b.close()
		if err := b.end(nil); err != nil || !strings.HasPrefix(out.String(), "d: ") {
			t.Errorf("%v: %q, %v", events, &out, err)
		}
	}
}
