//go:build !race

// The race detector reserves too much address space for any limit on it.

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// limited is a command line of this program below limits that a shell sets.
func (s *session) limited(limits string, args ...string) *exec.Cmd {
	return s.as(exec.Command("sh",
		append([]string{"-c", limits + ` && exec "$0" "$@"`, s.program}, args...)...))
}

// wantRefusal checks that a command failed with one line that has all parts, and one hint.
func wantRefusal(t *testing.T, what string, out []byte, err error, parts ...string) {
	t.Helper()
	var exit *exec.ExitError
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !errors.As(err,
		&exit) || exit.ExitCode() != 1 || len(lines) != 2 ||
		!strings.HasPrefix(lines[1], "dequantfs: hint: ") {
		t.Errorf("%s: %v, %s", what, err, out)
		return
	}
	for _, p := range append(parts, "dequantfs: ") {
		if !strings.Contains(lines[0], p) {
			t.Errorf("%s: no %q in %s", what, p, lines[0])
		}
	}
}

// TestFewDescriptorsAreRefusedInOneLine starts mounts with fewer and fewer descriptors.
func TestFewDescriptorsAreRefusedInOneLine(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	for n := 30; n >= 5; n-- {
		c := s.limited("ulimit -n "+strconv.Itoa(n), "mount", s.source, s.mnt)
		out, err := c.CombinedOutput()
		if err == nil {
			s.run("umount", s.mnt)
			continue
		}
		parts := []string{"open files"}
		if n < 18 {
			parts = append(parts, "the limit of open files is "+strconv.Itoa(n)+", but it takes 18")
		}
		wantRefusal(t, fmt.Sprint(n, " descriptors"), out, err, parts...)
	}
}

// TestLittleAddressSpaceIsRefusedInOneLine mounts below several limits of address space. Each mount
// is refused or serves.
func TestLittleAddressSpaceIsRefusedInOneLine(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	refused, served := 0, 0
	for mib := 1300; mib <= 3600; mib += 230 {
		limits := "ulimit -v " + strconv.Itoa(mib<<10)
		if startupFails(s, limits) {
			continue // the runtime does not start: none of our code runs
		}
		out, err := s.limited(limits, "mount", s.source, s.mnt).CombinedOutput()
		if err != nil {
			refused++
			wantRefusal(t, limits, out, err, strconv.Itoa(mib)+" MiB")
			continue
		}
		served++
		var readers sync.WaitGroup
		for _, name := range s.files() {
			for range 4 {
				readers.Go(func() {
					if _, err := readDirect(name); err != nil {
						t.Errorf("%s: %v", limits, err)
					}
				})
			}
		}
		readers.Wait()
		s.run("umount", s.mnt)
	}
	if refused == 0 || served == 0 {
		t.Errorf("%d mounts were refused, %d served", refused, served)
	}
}

// startupFails reports whether the Go runtime cannot start a program of this size below limits.
func startupFails(s *session, limits string) bool {
	out, err := s.limited(limits, "version").CombinedOutput()
	return err != nil && !strings.HasPrefix(string(out), "dequantfs: ")
}
