//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dequantfs/dequantfs/testdata/cgroup"
)

// cause lets readers read and faults happen until the end: all of them in a random order, and
// again.
func (s *soak) cause(ctx context.Context, end time.Time, readers int, seed uint64) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { s.reader(done, seed<<16+uint64(i)) })
	}
	for left := []int(nil); ctx.Err() == nil && time.Now().Before(end) && s.hung.Load() == 0; {
		if len(left) == 0 {
			left = s.rng.Perm(len(faults))
		}
		s.act(ctx, "a quiet moment", s.quiet)
		f := &faults[left[0]]
		s.act(ctx, f.name, func(ctx context.Context) error { return f.cause(s, ctx) })
		f.times, left = f.times+1, left[1:]
	}
	close(done)
	s.join(&wg)
}

// act does something that must succeed.
func (s *soak) act(ctx context.Context, what string, do func(context.Context) error) {
	if err := do(ctx); err != nil && ctx.Err() == nil {
		s.failed.Add(1)
		s.complain("%s: %v", what, err)
	}
}

// join waits for readers that were told to end.
func (s *soak) join(wg *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * s.limit):
		s.hung.Add(1)
		s.complain("readers do not end")
	}
}

// fault is something bad that happens to a mount.
type fault struct {
	name  string // of several
	cause func(*soak, context.Context) error
	times int
}

var faults = []fault{
	{name: "unmounts", cause: (*soak).umountAndMount},
	{name: "kills of the daemon", cause: (*soak).kill},
	{name: "killed readers", cause: (*soak).killReader},
	{name: "changed sources", cause: (*soak).change},
	{name: "changed sources with their times put back", cause: (*soak).changeUnseen},
	{name: "links made and removed", cause: (*soak).relink},
	{name: "syncs of the mount", cause: (*soak).sync},
	{name: "times without descriptors", cause: (*soak).starveOfDescriptors},
	{name: "crowds at the metrics", cause: (*soak).crowd},
	{name: "times memory taken away", cause: (*soak).squeeze},
	{name: "kills while it decodes ahead", cause: (*soak).killAhead},
	{name: "unmounts while it decodes ahead", cause: (*soak).unmountAhead},
	{name: "sources that stall ahead", cause: (*soak).stallAhead},
	{name: "sources that fail ahead", cause: (*soak).failAhead},
}

// keepFaults keeps the faults with a text in their names, and says whether there are any.
func keepFaults(only string) bool {
	faults = slices.DeleteFunc(faults,
		func(f fault) bool { return !strings.Contains(f.name, only) })
	return len(faults) > 0
}

// disturbed does something during which reads may fail.
func (s *soak) disturbed(do func() error) error {
	s.epoch.Add(1)
	defer s.epoch.Add(1)
	return do()
}

// engines are what fio reads with; its mmap engine has trouble with offsets on any file.
var engines = [][]string{
	{"--ioengine=psync"},
	{"--ioengine=psync", "--direct=1"},
	{"--ioengine=libaio", "--iodepth=16", "--direct=1"},
	{"--ioengine=io_uring", "--iodepth=16"},
}

// quiet lets fio verify its tensor with nothing bad happening.
func (s *soak) quiet(ctx context.Context) error {
	engine := engines[s.rng.IntN(len(engines))]
	if err := s.alive(); err != nil {
		return errors.Join(err, s.disturbed(func() error { return s.mount(ctx) }))
	}
	err := s.runFio(ctx, s.path("mnt", s.fio.name),
		append(engine, "--rw=randread", "--readonly")...)
	if err != nil && engine[0] == "--ioengine=io_uring" &&
		(strings.Contains(err.Error(), "Operation not permitted") ||
			strings.Contains(err.Error(), "not implemented")) {
		return nil // the system has it switched off
	}
	if err != nil {
		return err
	}
	s.fioRuns.Add(1)
	s.fioBytes.Add(s.fio.size)
	return nil
}

// readAhead is what the kernel reads ahead by itself. It is small, since dequantfs decodes ahead of
// readers that have read a few times as much, and the files here are small.
const readAhead = "1MiB"

// mount mounts the views with a small cache, in a small cgroup where there can be one.
func (s *soak) mount(ctx context.Context) error {
	mnt := s.path("mnt")
	args := []string{s.path("dequantfs"), "mount", "--foreground", s.path("source"), mnt,
		"--layout", "native,hf", "--cache-size", "24MiB", "--metrics", "127.0.0.1:0",
		"--ahead", "on", "--read-ahead", readAhead}
	if s.group != nil {
		args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, s.group.Procs()}, args...)
	}
	c := exec.Command(args[0], args[1:]...)
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr, c.Env = log, log, s.env
	if err := c.Start(); err != nil {
		return err
	}
	s.daemon, s.ended = c, make(chan error, 1)
	go func(ended chan<- error) { ended <- c.Wait() }(s.ended)
	for deadline := time.Now().Add(s.limit); ; time.Sleep(10 * time.Millisecond) {
		if answers(mnt) {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("the mount did not come up: %s", s.said())
		}
	}
}

// said is the daemon's log without its collections.
func (s *soak) said() []byte {
	log, _ := os.ReadFile(s.path("log"))
	return collection.ReplaceAll(log, nil)
}

// answers reports whether a living FUSE mount is at mnt. The kernel still answers many calls for a
// dead mount, but not this one. A mount whose process cannot end may never answer.
func answers(mnt string) bool {
	const fuse = 0x65735546
	answer := make(chan bool, 1)
	go func() {
		var stat syscall.Statfs_t
		answer <- syscall.Statfs(mnt, &stat) == nil && stat.Type == fuse
	}()
	select {
	case a := <-answer:
		return a
	case <-time.After(10 * time.Second):
		return false
	}
}

// gone waits for the daemon's end.
func (s *soak) gone() error {
	select {
	case err := <-s.ended:
		s.daemon = nil
		return err
	case <-time.After(s.limit):
		s.hung.Add(1)
		s.daemon.Process.Kill()
		syscall.Unmount(s.path("mnt"), syscall.MNT_FORCE) // ends what waits for it
		s.complain("the process behind the mount does not end")
		return errors.New("the process behind the mount does not end")
	}
}

// alive checks that the daemon has not ended by itself.
func (s *soak) alive() error {
	select {
	case err := <-s.ended:
		return fmt.Errorf("the process behind the mount ended by itself: %w: %s",
			errors.Join(err, io.ErrUnexpectedEOF), s.said())
	default:
		return nil
	}
}

// endings are the signals at which a daemon in the foreground ends.
var endings = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}

// umountAndMount asks the daemon to end under load, which it must do with status 0.
func (s *soak) umountAndMount(ctx context.Context) error {
	how := endings[s.rng.IntN(len(endings))]
	return s.disturbed(func() error {
		if err := s.daemon.Process.Signal(how); err != nil {
			return err
		}
		if err := s.gone(); err != nil {
			return fmt.Errorf("after %v: %w", how, err)
		}
		return s.mount(ctx)
	})
}

// kill kills the daemon; the next one finds a dead mount in its place.
func (s *soak) kill(ctx context.Context) error {
	return s.disturbed(func() error {
		if err := s.daemon.Process.Kill(); err != nil {
			return err
		}
		s.gone() // it was killed, so this is its error
		return s.mount(ctx)
	})
}

// killReader kills a process in the middle of reading. No other reader may notice.
func (s *soak) killReader(ctx context.Context) error {
	f := s.files[s.rng.IntN(len(s.files))]
	c := exec.CommandContext(ctx, "dd", "if="+s.path("mnt", f.name), "of=/dev/null", "bs=64k",
		"iflag=direct", "status=none")
	if err := c.Start(); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.rng.IntN(50)) * time.Millisecond)
	c.Process.Kill()
	c.Wait()
	return nil
}

// squeeze allocates much of the machine's memory for a moment.
func (s *soak) squeeze(context.Context) error {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return err
	}
	n := min(uint64(info.Freeram)*uint64(info.Unit)/4, 1<<30)
	m, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	return syscall.Munmap(m)
}

// makeGroup makes a memory cgroup of 512 MiB for the daemon, where that is allowed.
func (s *soak) makeGroup() {
	var err error
	if s.group, err = cgroup.New(512 << 20); err != nil {
		fmt.Println("soak: the daemon's memory is not limited:", err)
	}
}

// clear leaves nothing behind.
func (s *soak) clear() {
	if s.daemon != nil {
		s.daemon.Process.Signal(syscall.SIGTERM)
		s.gone()
	}
	for _, mnt := range []string{"mnt", "beside", "through"} {
		syscall.Unmount(s.path(mnt), syscall.MNT_DETACH)
	}
	if s.group != nil {
		s.group.Remove()
	}
}

// report prints what was done and survived.
func (s *soak) report() error {
	fmt.Printf("soak: %d reads, %d bytes checked by SHA-256; %d bytes checked by fio in %d runs\n",
		s.reads.Load(), s.bytes.Load(), s.fioBytes.Load(), s.fioRuns.Load())
	all, never := 0, 0
	var each []string
	for _, f := range faults {
		all += f.times
		each = append(each, fmt.Sprintf("%d %s", f.times, f.name))
		if f.times == 0 {
			never++
		}
	}
	fmt.Printf("soak: %d faults: %s\n", all, strings.Join(each, ", "))
	fmt.Printf("soak: %d wrong, %d hung, %d failed without a fault, %d failed during one; "+
		"longest read %v\n",
		s.wrong.Load(), s.hung.Load(), s.failed.Load(), s.excused.Load(),
		time.Duration(s.longest.Load()).Round(time.Millisecond))
	bad := s.wrong.Load() + s.hung.Load() + s.failed.Load()
	fmt.Printf("%d passed, %d failed\n", s.reads.Load()+s.fioRuns.Load(), bad)
	if bad > 0 {
		return errors.New("not all was well")
	}
	if s.reads.Load() == 0 || s.fioRuns.Load() == 0 {
		return errors.New("nothing was checked")
	}
	if never > 0 {
		fmt.Printf("soak: %d kinds of faults did not come about: it takes a minute\n", never)
	}
	return nil
}
