//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/testdata/cgroup"
	"github.com/dequantfs/dequantfs/testdata/synth"
	"golang.org/x/sys/unix"
)

// smallestReaders is how many read a mount while it is seen whether it has enough memory.
const smallestReaders = 16

// qwen has the sizes of Qwen3-30B-A3B, under the names of DeepSeek-V3.
var qwen = synth.Options{Layers: 48, Dense: -1, Experts: 128, Hidden: 2048, ExpertIntermediate: 768,
	Vocab: 151936, Heads: 32, Shards: 16}

// plainQwen is it before it was quantized.
func plainQwen() synth.Options {
	o := qwen
	o.Plain = true
	return o
}

// models are checkpoints of holes: what is in them does not matter for memory.
var models = []struct {
	name    string
	make    func() *synth.Checkpoint
	layouts []string
}{
	{"DeepSeek-V3", func() *synth.Checkpoint { return synth.NewFull().Checkpoint },
		[]string{"native", "hf", "transformers", "torchtitan",
			"native,hf,transformers,torchtitan"}},
	{"Qwen3-30B-A3B", func() *synth.Checkpoint { return synth.Holes(qwen) },
		[]string{"native", "hf", "transformers", "torchtitan",
			"native,hf,transformers,torchtitan"}},
	{"Qwen3-30B-A3B in BF16", func() *synth.Checkpoint { return synth.Holes(plainQwen()) },
		[]string{"hf-fp8"}},
}

// smallest prints a table: the smallest memory cgroup in which a mount of each layout serves its
// readers for the given time. It is what the refusal in a smaller one names, so that this is proved
// at the same time.
func (s *soak) smallest(ctx context.Context, o options) error {
	bad := 0
	for _, m := range models {
		if !strings.Contains(m.name, o.only) {
			continue
		}
		if err := m.make().Write(s.path("source")); err != nil {
			return err
		}
		for _, layout := range m.layouts {
			if o.layout != "" && layout != o.layout {
				continue
			}
			mib, result, err := s.leastMemory(ctx, layout, o)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				bad++
				result = err.Error()
			}
			fmt.Printf("| %s | `%s` | %d MiB | %s |\n", m.name, layout, mib, result)
		}
		if err := os.RemoveAll(s.path("source")); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d mounts did not serve in what they said they need", bad)
	}
	return nil
}

var needed = regexp.MustCompile(`but (\d+) MiB are needed at (least|most)`)

// leastMemory begins with too little, or what the command line says, and gives a mount what it says
// it needs until it serves.
func (s *soak) leastMemory(ctx context.Context, layout string,
	o options) (mib int64, result string, err error) {
	for mib = int64(o.memory); ; {
		result, err = s.serveWithin(ctx, layout, mib<<20, o)
		var r refused
		if !errors.As(err, &r) {
			return mib, result, err
		}
		m := needed.FindStringSubmatch(string(r))
		if m == nil {
			return mib, "", fmt.Errorf("refused: %s", r)
		}
		more, _ := strconv.ParseInt(m[1], 10, 64)
		if m[2] == "most" { // it could not even plan
			more = mib + 4
		}
		if more <= mib {
			return mib, "", fmt.Errorf("refused with what it needs: %s", r)
		}
		mib = more
	}
}

// refused is what a mount says that does not begin.
type refused string

func (r refused) Error() string { return string(r) }

// serveWithin mounts in a cgroup and reads for a while.
func (s *soak) serveWithin(ctx context.Context, layout string, limit int64,
	o options) (result string, err error) {
	group, err := cgroup.New(limit)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, group.Remove()) }()
	mnt := s.path("mnt")
	var said strings.Builder
	c := exec.CommandContext(ctx, "sh", "-c", `echo $$ >"$0" && exec "$@"`, group.Procs(),
		s.path("dequantfs"), "mount", "--foreground", s.path("source"), mnt, "--layout", layout)
	c.Stdout, c.Stderr = io.Discard, &said
	if err := c.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	for !answers(mnt) {
		select {
		case err := <-ended:
			if strings.Contains(said.String(), "dequantfs: ") {
				return "", refused(strings.TrimSpace(said.String()))
			}
			return "", fmt.Errorf("ended before it was mounted: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	bytes, failed, err := readHarder(ctx, mnt, o, ended)
	switch {
	case err != nil:
		return "", fmt.Errorf("killed while it served: %w", err)
	case failed > 0:
		return "", fmt.Errorf("%d reads failed: %s", failed, &said)
	}
	peak := peakOf(c.Process.Pid)
	if err := errors.Join(c.Process.Signal(unix.SIGTERM), <-ended); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MB/s, at the peak %s of its own",
		bytes/1e6/max(int64(o.length/time.Second), 1), peak), nil
}

// peakOf is the most memory that a process had.
func peakOf(pid int) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return fmt.Sprintf("%d MiB", kb>>10)
		}
	}
	return "?"
}

// readHarder lets readers read for a while, or until the mount ends, which is an error.
func readHarder(ctx context.Context, mnt string, o options,
	ended <-chan error) (bytes, failed int64, err error) {
	files, err := listFiles(mnt)
	if err != nil {
		return 0, 0, err
	}
	ctx, stop := context.WithTimeout(ctx, o.length)
	defer stop()
	var r hardReading
	var wg sync.WaitGroup
	for i := range smallestReaders {
		wg.Go(func() { r.read(ctx, files, rand.New(rand.NewPCG(o.seed, uint64(i)))) })
	}
	select {
	case err = <-ended:
		err = fmt.Errorf("it ended by itself: %v", err)
		unix.Unmount(mnt, unix.MNT_DETACH)
		stop()
	case <-ctx.Done():
	}
	wg.Wait()
	return r.bytes.Load(), r.failed.Load(), err
}

// listFiles lists what can be read of a mount.
func listFiles(mnt string) (files []file, err error) {
	err = filepath.WalkDir(mnt, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".safetensors") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files = append(files, file{name: path, size: info.Size()})
		}
		return err
	})
	return files, err
}

// hardReading reads in the ways that take most of a mount's memory: streams and single ranges,
// large and small, past the page cache and through it, each reader at places of its own.
type hardReading struct{ bytes, failed atomic.Int64 }

func (r *hardReading) read(ctx context.Context, files []file, rng *rand.Rand) {
	buf, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		r.failed.Add(1)
		return
	}
	defer unix.Munmap(buf)
	for ctx.Err() == nil {
		if err := r.stretch(ctx, files[rng.IntN(len(files))], buf, rng); err != nil {
			r.failed.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// stretch reads a stretch of a file.
func (r *hardReading) stretch(ctx context.Context, f file, buf []byte, rng *rand.Rand) error {
	h, err := os.OpenFile(f.name, os.O_RDONLY|rng.IntN(2)*unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer h.Close()
	piece := int64(64<<10) << rng.IntN(9)
	off := rng.Int64N(f.size) &^ 4095
	for n := 1 + rng.IntN(64); n > 0 && off < f.size && ctx.Err() == nil; n-- {
		got, err := h.ReadAt(buf[:min(piece, f.size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		r.bytes.Add(int64(got))
		off += int64(got)
	}
	return unix.Fadvise(int(h.Fd()), 0, 0, unix.FADV_DONTNEED)
}
