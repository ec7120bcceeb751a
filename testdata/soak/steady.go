//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/dequantfs/dequantfs/fs"
	"golang.org/x/sys/unix"
)

// steadyLimit is longer than hang, since this may run for half an hour with the least priority
// beside something that wants every core. On two cores the longest read took two seconds beside two
// busy loops, and five beside six.
const steadyLimit = 5 * time.Minute

// What the daemon may grow by from the first sixth of the time to its end.
//
// The resident size goes up and down by 10 MiB, with the collector and with what else the machine
// does. In a million requests, some ten minutes of two cores, a leak of a page of 4 KiB in 240
// requests would be above residentBound. Units of the cache and all else outside of the collector's
// heap show there at once. What leaks in the heap does not: until the limit that the daemon gives
// itself is reached, the collector only leaves less garbage about.
//
// So what is alive in the heap is looked at too. Replies under way are, and there are more of them
// when readers are fast. In a million requests a leak of 68 bytes each would be above them all.
//
// Descriptors are the source's four files, each once more when it is first read past the page
// cache, and a few others. A request for the status may be open while they are counted.
//
// A thread stays once it was needed, and a slow disk needs one for each request that waits for it:
// the kernel sends no more than 192 at once that no reader waits for.
const (
	residentBound   = 16 << 20
	descriptorBound = 8
	threadBound     = 200
)

var liveBound = fs.RequestMemory()

// enough is the number of requests that would leak 64 MiB if each leaked a page of 4 KiB. That is
// above either bound on a small machine. Fewer requests prove nothing.
const enough = 64 << 20 >> 12

// usage is what the daemon has.
type usage struct{ resident, live, descriptors, threads series }

func newUsage() *usage {
	return &usage{
		series{what: "bytes resident", bound: residentBound},
		series{what: "bytes alive in the heap", bound: liveBound},
		series{what: "descriptors", bound: descriptorBound},
		series{what: "threads", bound: threadBound},
	}
}

// add sees what a process has now, of which that much was alive in the heap. It fails once the
// process has ended.
func (u *usage) add(pid int, live int64) error {
	proc := fmt.Sprintf("/proc/%d/", pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return err
	}
	open, err := os.ReadDir(proc + "fd")
	if err != nil {
		return err
	}
	var resident, threads int64
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		fmt.Sscanf(line, "Threads: %d", &threads)
	}
	if resident == 0 || threads == 0 {
		return fmt.Errorf("%sstatus does not say what it has", proc)
	}
	u.resident.values = append(u.resident.values, resident<<10)
	u.live.values = append(u.live.values, live)
	u.descriptors.values = append(u.descriptors.values, int64(len(open)))
	u.threads.values = append(u.threads.values, threads)
	return nil
}

// collection is what the runtime writes of a collection: the heap at its beginning and end, and
// what of that is alive.
var collection = regexp.MustCompile(`(?m)^gc \d+ .* \d+->\d+->(\d+) MB, .*\n`)

// lastLive finds what was alive after the last collection in a log.
func lastLive(log string) (int64, error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	end := make([]byte, min(size, 64<<10))
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil {
		return 0, err
	}
	all := collection.FindAllSubmatch(end, -1)
	if len(all) == 0 {
		return 0, errors.New("the daemon's log tells of no collection")
	}
	n, err := strconv.ParseInt(string(all[len(all)-1][1]), 10, 64)
	return n << 20, err
}

// work is what the daemon says that it has done.
type work struct {
	Requests    int64 `json:"requests"`
	Bytes       int64 `json:"bytes"`
	SourceBytes int64 `json:"source_bytes"`
	Fills       int64 `json:"fills"`
}

func (w work) since(before work) work {
	return work{w.Requests - before.Requests, w.Bytes - before.Bytes,
		w.SourceBytes - before.SourceBytes, w.Fills - before.Fills}
}

// steady lets readers read with nothing bad happening, and judges what the daemon keeps of it. It
// has no cgroup: what it takes too much is to be seen, and not to be killed for.
func (s *soak) steady(ctx context.Context, o options) error {
	s.limit = steadyLimit
	s.env = append(os.Environ(), "GODEBUG=gctrace=1")
	if err := s.mount(ctx); err != nil {
		return err
	}
	fmt.Printf("soak: %d files to read steadily, %v, seed %d\n", len(s.files), o.length, o.seed)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range o.readers {
		wg.Go(func() { s.steadyReader(done, o.seed<<16+uint64(i)) })
	}
	u := newUsage()
	did, err := s.watch(ctx, o.length, u)
	close(done)
	s.join(&wg)
	if ctx.Err() != nil {
		return errors.New("interrupted, nothing is judged")
	}
	return s.reportSteady(u, did, err)
}

// steadyReader reads until done is closed.
func (s *soak) steadyReader(done <-chan struct{}, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	buf, want := make([]byte, 4<<20), make([]byte, 4<<20)
	for !isClosed(done) {
		f := s.files[rng.IntN(len(s.files))]
		if err := s.visit(done, f, rng, buf, want); err != nil {
			s.failed.Add(1)
			s.complain("%s: %v", f.name, err)
			time.Sleep(5 * time.Millisecond) // there may be no mount any more
		}
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// steadyWays are how an open file is read.
var steadyWays = []struct {
	name  string
	flags int
	read  func(f *os.File, p []byte, off int64) error
}{
	{"pread", 0, readAt},
	{"O_DIRECT", unix.O_DIRECT, readAt},
	{"mmap", 0, readMapped},
}

func readAt(f *os.File, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	return err
}

// readMapped lets the kernel copy a range out of a mapping, which faults as it would for us. But
// what does not come then holds up a system call, of which the runtime knows, and not one of its
// processors, and with the next collection the whole program, which could no longer say that
// something hangs.
func readMapped(f *os.File, p []byte, off int64) error {
	first := off &^ 4095
	m, err := unix.Mmap(int(f.Fd()), first, int(off-first)+len(p), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	to := []unix.Iovec{{Base: &p[0]}}
	to[0].SetLen(len(p))
	from := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&m[off-first])), Len: len(p)}}
	n, err := unix.ProcessVMReadv(os.Getpid(), to, from, 0)
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	return err
}

// visit opens a file and reads a few random ranges of it, or now and then all of it from its
// beginning to its end, which the kernel reads ahead for. Often it first lets the kernel forget the
// file, or soon nothing would be left to ask the daemon for.
func (s *soak) visit(done <-chan struct{}, f file, rng *rand.Rand, buf, want []byte) error {
	way := steadyWays[rng.IntN(len(steadyWays))]
	h, err := os.OpenFile(s.path("mnt", f.name), os.O_RDONLY|way.flags, 0)
	if err != nil {
		return err
	}
	defer h.Close()
	if rng.IntN(2) == 0 {
		if err := unix.Fadvise(int(h.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
	}
	read := func(_ string, p []byte, off int64) error { return way.read(h, p, off) }
	if rng.IntN(16) > 0 {
		for range 1 + rng.IntN(8) {
			off, n := randomRange(rng, f)
			s.one(f, way.name, read, buf[:n], want[:n], off)
		}
		return nil
	}
	piece := int64(64<<10) << rng.IntN(7)
	for off := int64(0); off < f.size && !isClosed(done); off += piece {
		n := min(piece, f.size-off)
		s.one(f, "sequential "+way.name, read, buf[:n], want[:n], off)
	}
	return nil
}

// watch looks at the daemon until the end of the time, and says what it has done since the first
// sixth of that. What it had before does not count: the cache, buffers, threads and the collector's
// heap were still coming to their size.
func (s *soak) watch(ctx context.Context, length time.Duration, u *usage) (did work, err error) {
	tick := time.NewTicker(max(min(5*time.Second, length/360), 50*time.Millisecond))
	defer tick.Stop()
	var before work
	for begin := time.Now(); time.Since(begin) < length && s.hung.Load() == 0; {
		select {
		case <-ctx.Done():
			return did, ctx.Err()
		case <-tick.C:
		}
		if err := s.alive(); err != nil {
			s.daemon = nil // there is nothing left to end
			return did, err
		}
		if time.Since(begin) < length/6 {
			continue
		}
		if len(u.resident.values) == 0 {
			if before, err = s.ask(); err != nil {
				return did, err
			}
		}
		live, err := lastLive(s.path("log"))
		if err != nil {
			return did, err
		}
		if err := u.add(s.daemon.Process.Pid, live); err != nil {
			return did, fmt.Errorf("%w; the process behind the mount ended: %v: %s", err, s.gone(),
				s.said())
		}
	}
	if s.hung.Load() > 0 {
		return did, errors.New("stopped: something hangs")
	}
	after, err := s.ask()
	return after.since(before), err
}

// ask asks the daemon what it has done.
func (s *soak) ask() (w work, err error) {
	read := make(chan error, 1)
	var data []byte
	go func() {
		var err error
		data, err = os.ReadFile(s.path("mnt", ".dequantfs", "stats.json"))
		read <- err
	}()
	select {
	case err = <-read:
		if err == nil {
			err = json.Unmarshal(data, &w)
		}
		return w, err
	case <-time.After(s.limit):
		s.hung.Add(1)
		return w, fmt.Errorf("the daemon takes more than %v to say what it has done", s.limit)
	}
}

// much says whether the daemon had enough to do: the kernel did not answer most reads from what it
// had cached, and the daemon computed as much as all files are.
func (s *soak) much(did work) bool {
	var size int64
	for _, f := range s.files {
		size += f.size
	}
	return did.Requests >= enough && did.Bytes >= size && did.SourceBytes > 0 && did.Fills > 0
}

// reportSteady prints what was read and kept.
func (s *soak) reportSteady(u *usage, did work, err error) error {
	bad := s.wrong.Load() + s.hung.Load() + s.failed.Load()
	problem := func(what any) {
		bad++
		fmt.Println("soak:", what)
	}
	fmt.Printf("soak: %d reads, %d bytes checked by SHA-256; %d wrong, %d hung, %d failed; "+
		"longest read %v\n", s.reads.Load(), s.bytes.Load(),
		s.wrong.Load(), s.hung.Load(), s.failed.Load(),
		time.Duration(s.longest.Load()).Round(time.Millisecond))
	fmt.Printf("soak: after the first sixth of the time: %d requests to the daemon for %d "+
		"bytes, %d bytes read of the source, %d units of the cache filled\n",
		did.Requests, did.Bytes, did.SourceBytes, did.Fills)
	if !s.much(did) {
		problem("that is too little to show anything")
	}
	for _, x := range []series{u.resident, u.live, u.descriptors, u.threads} {
		fmt.Println("soak:", x)
		if !x.flat() {
			problem(x.what + ": not flat")
		}
	}
	if err != nil {
		problem(err)
	}
	fmt.Printf("%d passed, %d failed\n", s.reads.Load(), bad)
	if bad > 0 {
		return errors.New("not all was well")
	}
	return nil
}
