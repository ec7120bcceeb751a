package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/mounts"
)

// benchPiece is the bytes of one read.
const benchPiece = 4 << 20

// readSource reads the bytes from which the sample is computed, cold.
func (b *bench) readSource(ctx context.Context) error {
	if b.overNetwork() {
		return b.readRemote(ctx)
	}
	return b.time("source-cold", "source bytes, cold", sumRanges(b.ranges), b.warmSource)
}

func sumRanges(ranges []benchRange) (n int64) {
	for _, r := range ranges {
		n += r.n
	}
	return n
}

// readCopy reads the same bytes from files on disk.
func (b *bench) readCopy(context.Context) error {
	return b.coldAndWarm("copy", "copy on disk", func() error { return b.readParts(b.copy, 0) })
}

// coldAndWarm times the first and the third reading. During the second one, read-ahead beyond the
// sample is still running, and the kernel marks each page as used again.
func (b *bench) coldAndWarm(name, what string, read func() error) error {
	total := sampleBytes(b.sample)
	err := b.time(name+"-cold", what+", cold", total, read)
	if err == nil {
		err = read()
	}
	if err == nil {
		err = b.time(name+"-warm", what+", warm", total, read)
	}
	return err
}

// readVirtual reads virtual files in this process.
func (b *bench) readVirtual(ctx context.Context) error {
	for _, when := range b.states() {
		if when == "warm" {
			if err := b.warmSource(); err != nil {
				return err
			}
		}
		s, err := b.openSource()
		if err != nil {
			return err
		}
		name, what := "virtual-"+when, "virtual files without FUSE, source "+when
		err = b.time(name, what, sampleBytes(b.sample),
			func() error { return readTree(ctx, s.fs, b.sample, 1) })
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	if b.overNetwork() {
		return nil
	}
	return b.readVirtualTogether(ctx)
}

// readVirtualTogether reads virtual files in this process by several readers, the source warm.
func (b *bench) readVirtualTogether(ctx context.Context) error {
	if b.readers == 1 {
		return nil
	}
	s, err := b.openSource()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("virtual-warm-%d", b.readers)
	what := "virtual files without FUSE, " + readersText(b.readers) + ", source warm"
	err = b.time(name, what, sampleBytes(b.sample),
		func() error { return readTree(ctx, s.fs, b.sample, b.readers) })
	return errors.Join(err, s.Close())
}

// readTree reads parts of files. Each file is divided among the readers.
func readTree(ctx context.Context, f *fs.FS, parts []benchPart, readers int) error {
	for _, p := range parts {
		r, err := f.ReaderAt(p.name)
		if err != nil {
			return err
		}
		each := (p.bytes/int64(readers) + benchPiece - 1) / benchPiece * benchPiece
		var g errgroup.Group
		for at := int64(0); at < p.bytes; at += each {
			g.Go(func() error { return readVirtualPart(ctx, r, at, min(each, p.bytes-at)) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func readVirtualPart(ctx context.Context, r fs.ReaderAtContext, off, n int64) error {
	buf := make([]byte, benchPiece)
	for end := off + n; off < end; off += benchPiece {
		piece := buf[:min(benchPiece, end-off)]
		if n, err := r.ReadAtContext(ctx, piece, off); n < len(piece) {
			return err
		}
	}
	return nil
}

// readMount reads the mount as most programs do, first with nothing in memory.
func (b *bench) readMount(ctx context.Context) error {
	return b.mounted(ctx, func(dir string) error {
		return b.coldAndWarm("mount", "mount", func() error { return b.readParts(dir, 0) })
	})
}

// readDirect reads the mount past the page cache, with the source in it, unless that comes over a
// network. Files are opened with O_DIRECT. Then a mount is read that needs no such flag.
func (b *bench) readDirect(ctx context.Context) error {
	if err := b.warmSource(); err != nil {
		return err
	}
	for _, n := range b.readerCounts() {
		what := "mount, O_DIRECT, " + readersText(n)
		if err := b.readPast(ctx, fmt.Sprintf("direct-%d", n), what, n); err != nil {
			return err
		}
	}
	what := "mount --direct, " + readersText(b.readers)
	return b.readPast(ctx, "direct-mount", what, b.readers, "--direct")
}

// readPast reads a mount with these flags, in parts.
func (b *bench) readPast(
	ctx context.Context, name, what string, readers int, flags ...string,
) error {
	what += ", source " + b.states()[len(b.states())-1]
	read := func(dir string, _ int) error {
		parts := func() error { return b.readParts(dir, readers) }
		return b.time(name, what, sampleBytes(b.sample), parts)
	}
	return b.served(ctx, append(b.mountArguments(), flags...), b.watched(read))
}

func (b *bench) readerCounts() []int {
	if b.readers == 1 {
		return []int{1}
	}
	return []int{1, b.readers}
}

func readersText(n int) string {
	return strconv.Itoa(n) + " " + plural(n, "reader", "readers")
}

// readMemory reads the file of memory.
func (b *bench) readMemory(ctx context.Context) error {
	total := sampleBytes(b.sample)
	args := []string{"bench", "memory", b.path("mount"), strconv.FormatInt(total, 10)}
	return b.served(ctx, args, func(dir string, _ int) error {
		file := filepath.Join(dir, memoryName)
		read := func() error { return readFile(file, 0, total, 0) }
		if err := b.coldAndWarm("memory", "FUSE file of memory", read); err != nil {
			return err
		}
		for _, n := range b.readerCounts() {
			name := fmt.Sprintf("memory-direct-%d", n)
			read := func() error { return readFile(file, 0, total, n) }
			err := b.time(name, "FUSE file of memory, O_DIRECT, "+readersText(n), total, read)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// readParts reads the sample below dir. With readers it reads past the page cache, without readers
// through it.
func (b *bench) readParts(dir string, readers int) error {
	for _, p := range b.sample {
		if err := readFile(filepath.Join(dir, p.name), 0, p.bytes, readers); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads n bytes at off. With readers above 0 it reads past the page cache, in as many
// parts at the same time.
func readFile(path string, off, n int64, readers int) error {
	flags := os.O_RDONLY
	if readers > 0 {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	parts := int64(max(readers, 1))
	each := (n/parts + benchPiece - 1) / benchPiece * benchPiece
	var g errgroup.Group
	for at := off; at < off+n; at += each {
		g.Go(func() error { return readPart(f, at, min(each, off+n-at)) })
	}
	return g.Wait()
}

func readPart(f *os.File, off, n int64) error {
	buf := make([]byte, benchPiece) // begins on a page, as O_DIRECT requires
	for end := off + n; off < end; {
		got, err := f.ReadAt(buf[:min(benchPiece, end-off)], off)
		if got == 0 {
			return fmt.Errorf("%s at byte %d: %w", f.Name(), off, err)
		}
		off += int64(got)
	}
	return nil
}

// chill drops the copy and the source bytes of the sample from memory. It comes before each group,
// so each begins with the same amount of free and recently used memory. The host of a virtual
// machine may have taken back other memory, and new memory is slow.
func (b *bench) chill() error {
	for _, r := range b.ranges {
		if b.overNetwork() {
			break // each group opens the source anew
		}
		if err := b.drop(r.path, r.off, r.n); err != nil {
			return err
		}
	}
	if !b.wants("copy") {
		return nil
	}
	for _, p := range b.sample {
		if err := b.drop(filepath.Join(b.copy, p.name), 0, p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// warmSource reads the bytes from which the sample is computed into memory.
func (b *bench) warmSource() error { return b.warm(b.ranges) }

// warm reads ranges of the source into memory. Those over a network have no place there.
func (b *bench) warm(ranges []benchRange) error {
	if b.overNetwork() {
		return nil
	}
	return readRanges(ranges)
}

func readRanges(ranges []benchRange) error {
	for _, r := range ranges {
		if err := readFile(r.path, r.off, r.n, 0); err != nil {
			return err
		}
	}
	return nil
}

// drop drops a range of a file from memory and checks that it is gone.
func (b *bench) drop(path string, off, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	first := off &^ 4095
	length := (off+n+4095)&^4095 - first
	if err := unix.Fadvise(int(f.Fd()), first, length, unix.FADV_DONTNEED); err != nil {
		return os.NewSyscallError("fadvise", err)
	}
	resident, pages, err := residentPages(f, first, off+n-first)
	if err != nil {
		return err
	}
	if resident > pages/100+2 {
		b.note("%s: %d of %d pages stayed in memory, so it was not read cold", filepath.Base(path),
			resident, pages)
	}
	return nil
}

// mounted reads a fresh mount of the view.
func (b *bench) mounted(ctx context.Context, read func(dir string) error) error {
	return b.mountedBy(ctx, func(dir string, _ int) error { return read(dir) })
}

// mountedBy is mounted for a reading that also looks at the process behind the mount.
func (b *bench) mountedBy(ctx context.Context, read reading) error {
	return b.served(ctx, b.mountArguments(), b.watched(read))
}

// watched is a reading after which the memory of the process is looked at.
func (b *bench) watched(read reading) reading {
	return func(dir string, pid int) error {
		err := read(dir, pid)
		b.resident = max(b.resident, peakResident(pid))
		return err
	}
}

// reading reads a mount at dir, which a process serves.
type reading func(dir string, pid int) error

// served runs this program with args that mount something, and reads the mount. The mount has its
// own process, because a process that reads its own mount by mmap may wait for itself.
func (b *bench) served(ctx context.Context, args []string, read reading) error {
	dir := b.path("mount")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	child := exec.Command(self, args...)
	child.Stdout, child.Stderr = &said, &said
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	if err := waitMounted(ctx, dir, ended); err != nil {
		child.Process.Kill()
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	err = read(dir, child.Process.Pid)
	err = errors.Join(err, umount(context.WithoutCancel(ctx), dir, err != nil))
	if err != nil {
		child.Process.Kill()
	}
	<-ended
	return err
}

// waitMounted waits until a checkpoint is mounted at dir.
func waitMounted(ctx context.Context, dir string, ended <-chan error) error {
	real, err := fs.ResolveMountpoint(dir)
	if err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if m, found, err := mounts.Top(real); err != nil || found && m.Type == mounts.Type {
			if err == nil {
				_, err = os.ReadDir(dir)
			}
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the process behind the mount ended: %w",
				errors.Join(err, io.ErrUnexpectedEOF))
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// peakResident returns the most memory that a process has had.
func peakResident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
