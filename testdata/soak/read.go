//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// counts are what the report says.
type counts struct {
	reads, bytes, fioBytes atomic.Int64
	wrong, hung, failed    atomic.Int64 // failed: without a fault
	excused                atomic.Int64 // failed during a fault
	fioRuns                atomic.Int64
	epoch                  atomic.Int64 // odd while a fault is under way
	complaints             sync.Map
	longest                atomic.Int64 // ns
	problems               atomic.Int64
}

// hang is the limit where nothing else is to run beside it.
const hang = 60 * time.Second

// complain prints a problem, each only once and not too many.
func (c *counts) complain(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if _, said := c.complaints.LoadOrStore(line, true); !said && c.problems.Add(1) <= 50 {
		fmt.Println("soak:", line)
	}
}

// ways are how readers read.
var ways = []struct {
	name string
	read func(path string, p []byte, off int64) error
}{
	{"pread", preadRange},
	{"O_DIRECT", directRange},
	{"mmap", mapRange},
}

func preadRange(path string, p []byte, off int64) error { return openRange(path, 0, p, off) }

func directRange(path string, p []byte, off int64) error {
	return openRange(path, syscall.O_DIRECT, p, off)
}

func openRange(path string, flags int, p []byte, off int64) error {
	f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, off)
	return err
}

// mapRange copies a range out of a mapping. A fault there is a SIGBUS, which becomes an error.
func mapRange(path string, p []byte, off int64) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	first := off &^ 4095
	m, err := syscall.Mmap(int(f.Fd()), first, int(off-first)+len(p), syscall.PROT_READ,
		syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	defer syscall.Munmap(m)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("mmap: %v", v)
		}
	}()
	copy(p, m[off-first:])
	return nil
}

// reader reads until done is closed.
func (s *soak) reader(done <-chan struct{}, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	buf, want := make([]byte, 4<<20), make([]byte, 4<<20)
	for {
		select {
		case <-done:
			return
		default:
		}
		s.gate.RLock()
		s.something(done, rng, buf, want)
		s.gate.RUnlock()
	}
}

// something reads a random range, or now and then much of a layout as a loader does.
func (s *soak) something(done <-chan struct{}, rng *rand.Rand, buf, want []byte) {
	if rng.IntN(64) == 0 {
		s.forward(done, rng, buf, want)
		return
	}
	f := s.files[rng.IntN(len(s.files))]
	off, n := randomRange(rng, f)
	way := ways[rng.IntN(len(ways))]
	s.one(f, way.name, way.read, buf[:n], want[:n], off)
}

// randomRange chooses small and large ranges alike.
func randomRange(rng *rand.Rand, f file) (off, n int64) {
	off = rng.Int64N(f.size)
	return off, min(1+rng.Int64N(1<<(8+rng.IntN(15))), f.size-off)
}

// one reads a range and compares its SHA-256 with what it must be.
func (s *soak) one(f file, how string, read func(string, []byte, int64) error, p, want []byte,
	off int64) {
	s.oneSince(s.epoch.Load(), f, how, read, p, want, off)
}

// oneSince is one for a reader that has opened the file in an epoch.
func (s *soak) oneSince(before int64, f file, how string,
	read func(string, []byte, int64) error, p, want []byte, off int64) {
	if _, err := f.want.ReadAt(want, off); err != nil {
		s.failed.Add(1)
		s.complain("%s: the export: %v", f.name, err)
		return
	}
	for i := range p {
		p[i] = ^want[i] // so that a byte that is not written is wrong
	}
	watch := time.AfterFunc(s.limit, func() {
		s.hung.Add(1)
		s.complain("%s: a %s of %d bytes at %d takes more than %v", f.name, how, len(p), off,
			s.limit)
	})
	begin := time.Now()
	err := read(s.path("mnt", f.name), p, off)
	took := time.Since(begin)
	watch.Stop()
	for longest := s.longest.Load(); int64(took) > longest &&
		!s.longest.CompareAndSwap(longest, int64(took)); {
		longest = s.longest.Load()
	}
	switch disturbed := before%2 == 1 || s.epoch.Load() != before; {
	case err != nil && disturbed:
		s.excused.Add(1)
		time.Sleep(5 * time.Millisecond) // the mount may be away
	case err != nil:
		s.failed.Add(1)
		s.complain("%s: a %s of %d bytes at %d: %v", f.name, how, len(p), off, err)
	case sha256.Sum256(p) != sha256.Sum256(want):
		s.wrong.Add(1)
		s.complain("%s: a %s of %d bytes at %d gave wrong bytes, the first at %d", f.name, how,
			len(p), off, off+int64(firstDifference(p, want)))
	default:
		s.reads.Add(1)
		s.bytes.Add(int64(len(p)))
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return bytes.Compare(a, b)
}
