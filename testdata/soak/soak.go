//go:build linux

// Command soak reads mounts for minutes or hours while they are unmounted, killed, squeezed and
// robbed of their source, and compares every byte with an export of the same view.
//
//	go run ./testdata/soak                 two minutes
//	go run ./testdata/soak -for 2h -seed 7
//
// Readers use pread, mmap and O_DIRECT at random offsets, and fio reads a tensor that fio itself has
// written, with its own verification. A read may fail while a fault is under way and shortly after; it
// may never give a wrong byte, and it may never hang. What was done and survived is printed at the end,
// as "soak: N reads, …", and the exit status says whether all was well.
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

func main() {
	length := flag.Duration("for", 2*time.Minute, "how long to go on")
	seed := flag.Uint64("seed", 1, "of what is done when")
	readers := flag.Int("readers", 8, "readers at once")
	scratch := flag.String("scratch", "", "directory for everything (default that of temporary files)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *length, *seed, *readers, *scratch); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, length time.Duration, seed uint64, readers int, scratch string) error {
	dir, err := os.MkdirTemp(scratch, "dequantfs-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &soak{dir: dir, rng: rand.New(rand.NewPCG(seed, 1))}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	defer s.clear()
	if err := s.mount(ctx); err != nil {
		return err
	}
	fmt.Printf("soak: %d files to read, %v, seed %d\n", len(s.files), length, seed)
	s.cause(ctx, time.Now().Add(length), readers, seed)
	return s.report()
}
