//go:build linux

// Command soak reads mounts for minutes or hours, and compares every byte with an export of the
// same view. Meanwhile it unmounts and kills them, takes their memory, and changes or removes their
// source.
//
//	go run ./testdata/soak                 two minutes
//	go run ./testdata/soak -for 2h -seed 7
//
// Readers use pread, mmap and O_DIRECT at random offsets, and fio reads a tensor that fio itself
// has written, with its own verification. A read may fail while a fault is under way and shortly
// after; it may never give a wrong byte, and it may never hang. What was done and survived is
// printed at the end, as "soak: N reads, …". The exit status is 0 if no check failed.
//
// With -steady there are no faults. The memory, descriptors and threads that the process behind the
// mount keeps must not grow. See steady.go.
//
//	go run ./testdata/soak -steady -for 30m
//
// With -smallest it finds the smallest memory cgroup in which each layout serves 16 readers for the
// given time.
//
//	go run ./testdata/soak -smallest -for 1m
//
// It needs Linux, root, FUSE and fio, and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	steady  bool
	length  time.Duration
	seed    uint64
	readers int
	scratch string

	smallest     bool
	only, layout string
	memory       int // MiB
}

func main() {
	var o options
	flag.BoolVar(&o.steady, "steady", false,
		"let nothing bad happen, and watch the memory of the process behind the mount")
	flag.DurationVar(&o.length, "for", 2*time.Minute, "how long to go on")
	flag.Uint64Var(&o.seed, "seed", 1, "of what is done when")
	flag.IntVar(&o.readers, "readers", 8, "readers at once")
	flag.StringVar(&o.scratch, "scratch", "",
		"directory for everything (default that of temporary files)")
	flag.BoolVar(&o.smallest, "smallest", false,
		"find the smallest memory cgroup in which each layout is served")
	flag.StringVar(&o.only, "only", "",
		"faults, or with -smallest checkpoints, with this in their names")
	flag.StringVar(&o.layout, "layout", "", "with -smallest: this layout")
	flag.IntVar(&o.memory, "memory", 32, "with -smallest: MiB to begin with")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hearHangups()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// hearHangups lets the mounts hear SIGHUP also where nohup has it ignored. A signal that is handled
// here has its default in the processes that are started from here.
func hearHangups() {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.scratch, "dequantfs-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &soak{dir: dir, rng: rand.New(rand.NewPCG(o.seed, 1)), limit: hang}
	if o.smallest {
		if err := s.build(ctx); err != nil {
			return err
		}
		return s.smallest(ctx, o)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	defer s.clear()
	if o.steady {
		return s.steady(ctx, o)
	}
	s.makeGroup()
	if !keepFaults(o.only) {
		return fmt.Errorf("no fault has %q in its name", o.only)
	}
	if err := s.mount(ctx); err != nil {
		return err
	}
	fmt.Printf("soak: %d files to read, %v, seed %d\n", len(s.files), o.length, o.seed)
	s.cause(ctx, time.Now().Add(o.length), o.readers, o.seed)
	return s.report()
}
