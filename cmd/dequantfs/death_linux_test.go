package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// load is a group of readers of a mount. Each reads random ranges of one file and compares them
// with an export of the same view, until a read fails or the test ends.
type load struct {
	stop    atomic.Bool
	ended   chan error
	readers []*atomic.Int64 // how many reads each has done
}

// loadReaders is the number of readers. Half of them read through the kernel's cache, which they
// empty before each read. The others read past it.
const loadReaders = 8

// startLoad begins to read the safetensors files of a mounted view. want has the right bytes.
func startLoad(s *session, want string) *load {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(want, "*.safetensors"))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("nothing in %s: %v", want, err)
	}
	l := &load{ended: make(chan error, loadReaders)}
	for i := range loadReaders {
		name := names[i%len(names)]
		data, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		done := new(atomic.Int64)
		l.readers = append(l.readers, done)
		flags := i / 2 % 2 * unix.O_DIRECT
		go func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			l.ended <- l.read(filepath.Join(s.mnt, filepath.Base(name)), flags, data, rng, done)
		}()
	}
	return l
}

// errWrong is the error of a read that returned wrong bytes, which must never happen.
var errWrong = errors.New("wrong bytes")

func (l *load) read(name string, flags int, want []byte, rng *rand.Rand, done *atomic.Int64) error {
	f, err := os.OpenFile(name, os.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for !l.stop.Load() {
		off := rng.IntN(len(want))
		part := buf[:min(1+rng.IntN(len(buf)), len(want)-off)]
		if flags&unix.O_DIRECT == 0 {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				return err
			}
		}
		if _, err := f.ReadAt(part, int64(off)); err != nil {
			return err
		}
		if !bytes.Equal(part, want[off:][:len(part)]) {
			return fmt.Errorf("%s: [%d, %d): %w", name, off, off+len(part), errWrong)
		}
		done.Add(1)
		time.Sleep(time.Millisecond) // leave some of the cores to others
	}
	return nil
}

// more waits until each reader has done n more reads than now, or one has failed.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	goals := make([]int64, len(l.readers))
	for i, done := range l.readers {
		goals[i] = done.Load() + n
	}
	eventually(t.Fatalf, func() error {
		if len(l.ended) > 0 {
			t.Fatalf("a reader ended: %v", <-l.ended)
		}
		for i, done := range l.readers {
			if done.Load() < goals[i] {
				return fmt.Errorf("reader %d has done %d of %d reads", i, done.Load(), goals[i])
			}
		}
		return nil
	})
}

// results waits until all readers have ended and returns their errors.
func (l *load) results(t *testing.T) (errs []error) {
	t.Helper()
	eventually(t.Fatalf, func() error {
		if n := len(l.ended); n < loadReaders {
			return fmt.Errorf("%d of %d readers hang", loadReaders-n, loadReaders)
		}
		return nil
	})
	for range loadReaders {
		errs = append(errs, <-l.ended)
	}
	return errs
}

// sourceSums are the SHA-256 of the source's files.
func (s *session) sourceSums() map[string][sha256.Size]byte {
	s.t.Helper()
	sums := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(s.source, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		sums[name] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return sums
}

// mountUnderLoad exports the native view and mounts it with a cache that is too small. The mount is
// in a process for which the test can wait. Then readers begin.
func mountUnderLoad(t *testing.T, flags ...string) (s *session, daemon *exec.Cmd, l *load,
	want string) {
	t.Helper()
	requireFUSE(t)
	s = newSession(t)
	want = filepath.Join(s.dir, "want")
	s.run("export", s.source, want, "--layout", "native")
	daemon = s.serve(flags...)
	l = startLoad(s, want)
	l.more(t, 10)
	return s, daemon, l, want
}

// serve mounts the native view in the foreground and returns once it is ready.
func (s *session) serve(flags ...string) *exec.Cmd {
	s.t.Helper()
	args := append([]string{"mount", "--foreground", "--layout", "native", "--cache-size", "64KiB",
		s.source, s.mnt}, flags...)
	daemon := s.command(args...)
	var said bytes.Buffer
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		clearMounts(s.dir)
		daemon.Process.Kill()
		daemon.Wait()
		if s.t.Failed() {
			s.t.Logf("the process behind the mount said:\n%s", &said)
		}
	})
	eventually(s.t.Fatalf, func() error {
		for _, r := range recordsOf(filepath.Join(s.dir, "run", "dequantfs"), s.mnt) {
			if r.PID == daemon.Process.Pid {
				return nil // written once the mount is ready
			}
		}
		return errors.New("not mounted yet")
	})
	return daemon
}

// mountsAgain checks that the next mount at this place shows the right bytes, and that the source
// is unchanged.
func (s *session) mountsAgain(want string, before map[string][sha256.Size]byte) {
	s.t.Helper()
	s.run("mount", "--layout", "native", s.source, s.mnt)
	out, err := exec.Command("diff", "-r", "--exclude", ".dequantfs", want, s.mnt).CombinedOutput()
	if err != nil {
		s.t.Errorf("the next mount: %v\n%s", err, out)
	}
	s.run("umount", s.mnt)
	after := s.sourceSums()
	if len(after) != len(before) {
		s.t.Errorf("the source has %d files, had %d", len(after), len(before))
	}
	for name, sum := range before {
		if after[name] != sum {
			s.t.Errorf("%s has changed", name)
		}
	}
}

func TestKilledUnderLoad(t *testing.T) {
	s, daemon, l, want := mountUnderLoad(t)
	before := s.sourceSums()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, err := range l.results(t) {
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err,
			unix.EIO) {
			t.Errorf("a reader ended with %v", err)
		}
	}
	daemon.Wait()
	status, ok := daemon.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("the process ended by itself: %v", daemon.ProcessState)
	}
	s.mountsAgain(want, before)
}

// Files that are open at SIGTERM can be read to their end.
func TestTerminatedUnderLoad(t *testing.T) {
	t.Parallel() // it takes the seconds of waiting for a mount in use
	s, daemon, l, want := mountUnderLoad(t)
	before := s.sourceSums()
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t.Fatalf, func() error {
		if below, err := mountsBelow(s.dir); err != nil || len(below) > 0 {
			return fmt.Errorf("still mounted: %q, %v", below, err)
		}
		return nil
	})
	l.more(t, 10)
	l.stop.Store(true)
	for _, err := range l.results(t) {
		if err != nil {
			t.Errorf("a reader ended with %v", err)
		}
	}
	endsWell(t, daemon)
	s.mountsAgain(want, before)
}

// endsWell waits until a process ends, and checks that it ends with 0.
func endsWell(t *testing.T, daemon *exec.Cmd) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	eventually(t.Fatalf, func() error {
		if len(ended) == 0 {
			return errors.New("the process behind the mount does not end")
		}
		return nil
	})
	if err := <-ended; err != nil {
		t.Errorf("the process behind the mount: %v", err)
	}
}

// Readers that never close their files do not keep the mount. They get errors after --drain, before
// the mount has been detached or after.
func TestTerminatedUnderLoadThatDoesNotEnd(t *testing.T) {
	for _, drain := range []string{"500ms", "6s"} {
		t.Run(drain, func(t *testing.T) {
			t.Parallel()
			s, daemon, l, want := mountUnderLoad(t, "--drain", drain)
			before := s.sourceSums()
			if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			endsWell(t, daemon)
			for _, err := range l.results(t) {
				if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err,
					unix.ECONNABORTED) && !errors.Is(err, unix.EIO) {
					t.Errorf("a reader ended with %v", err)
				}
			}
			if below, err := mountsBelow(s.dir); err != nil || len(below) > 0 {
				t.Errorf("still mounted: %q, %v", below, err)
			}
			s.mountsAgain(want, before)
		})
	}
}
