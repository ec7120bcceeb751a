package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// benchLoader is the view of a loader that maps files and reads them alone, forward and cold.
type benchLoader struct {
	Rate    float64 `json:"rate"`              // bytes per second
	Allowed float64 `json:"allowed,omitempty"` // the lesser of what the disk and memory allow
	Ratio   float64 `json:"ratio,omitempty"`   // Rate / Allowed
	Busy    float64 `json:"busy"`              // share of the processors' time that it took
	BoundBy string  `json:"bound_by,omitempty"`
}

// readMapped reads the mount through mmap, and for comparison a file of memory.
func (b *bench) readMapped(ctx context.Context) error {
	err := b.mountedBy(ctx, func(dir string, pid int) error {
		paths := b.sampleIn(dir)
		err := b.timeBusy("mmap-cold", "mount by mmap, cold", pid, paths)
		if err == nil {
			err = readMappings(paths)
		}
		if err == nil {
			err = b.timeBusy("mmap-warm", "mount by mmap, warm", pid, paths)
		}
		return err
	})
	if err != nil {
		return err
	}
	total := sampleBytes(b.sample)
	args := []string{"bench", "memory", b.path("mount"), strconv.FormatInt(total, 10)}
	return b.served(ctx, args, func(dir string, pid int) error {
		file := []mappedPart{{filepath.Join(dir, memoryName), total}}
		return b.timeBusy("memory-mmap-cold", "FUSE file of memory by mmap, cold", pid, file)
	})
}

// mappedPart is the beginning of a file that is read through a mapping.
type mappedPart struct {
	path  string
	bytes int64
}

// sampleIn returns the sample below dir.
func (b *bench) sampleIn(dir string) []mappedPart {
	var parts []mappedPart
	for _, p := range b.sample {
		parts = append(parts, mappedPart{filepath.Join(dir, p.name), p.bytes})
	}
	return parts
}

func readMappings(parts []mappedPart) error {
	for _, p := range parts {
		if err := readMapping(p.path, p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// readMapping copies a mapped file out of its mapping.
func readMapping(path string, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(m)
	buf := make([]byte, benchPiece)
	for len(m) > 0 {
		m = m[copy(buf, m):]
	}
	return nil
}

// timeBusy times the reading of mapped files. It also measures how much of the processors' time
// this process and the one behind the mount took.
func (b *bench) timeBusy(name, what string, pid int, parts []mappedPart) error {
	var total int64
	for _, p := range parts {
		total += p.bytes
	}
	before, begin := processorTime(pid), time.Now()
	if err := b.time(name, what, total, func() error { return readMappings(parts) }); err != nil {
		return err
	}
	used, took := processorTime(pid)-before, time.Since(begin)
	b.busy[name] = append(b.busy[name],
		used.Seconds()/max(took.Seconds(), 1e-9)/float64(runtime.NumCPU()))
	return nil
}

// processorTime returns what this process and another one have used.
func processorTime(pid int) time.Duration {
	var self unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &self) // it cannot fail
	used := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return used
	}
	return used + statTime(string(data))
}

// ticks is the unit of times in /proc/PID/stat, USER_HZ.
const ticks = 100

// statTime returns the user and system time in the text of /proc/PID/stat. The second field, the
// name, may hold spaces and brackets.
func statTime(stat string) time.Duration {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	const user, system = 14 - 3, 15 - 3 // fields as proc(5) counts them, behind the name
	if len(fields) <= system {
		return 0
	}
	u, err := strconv.ParseInt(fields[user], 10, 64)
	s, err2 := strconv.ParseInt(fields[system], 10, 64)
	if errors.Join(err, err2) != nil {
		return 0
	}
	return time.Duration(u+s) * time.Second / ticks
}

// loader computes the view of a loader that maps files, if it was measured.
func (r *benchReport) loader(busy []float64) *benchLoader {
	l := &benchLoader{Rate: r.of("mmap-cold")}
	if l.Rate == 0 {
		return nil
	}
	if len(busy) > 0 {
		l.Busy = min(median(busy), 1)
	}
	disk, warm := r.disk(), r.of("mmap-warm")
	if disk == 0 || warm == 0 {
		return l
	}
	l.Allowed = min(disk, warm)
	l.Ratio = l.Rate / l.Allowed
	l.BoundBy = r.boundBy(l, disk, warm)
	return l
}

// boundBy names the step that allows a mapping loader the least.
func (r *benchReport) boundBy(l *benchLoader, disk, warm float64) string {
	stations := []station{
		{disk, "the disk that the source is on"},
		{r.decoding(), "decoding, and transposing for grouped layouts"},
		{warm, "memory: the loader's copy out of the page cache"},
		{l.Rate / max(l.Busy, 1e-9), "the processors: they are busy"},
	}
	// What is decoded ahead goes past the windows of the kernel, so it may be faster than a
	// file of memory.
	if fuse := r.of("memory-mmap-cold"); fuse >= l.Rate {
		stations = append(stations, station{fuse, "FUSE: the kernel's windows of read-ahead"})
	}
	stations = slices.DeleteFunc(stations, func(s station) bool { return s.rate == 0 })
	least := slices.MinFunc(stations, func(a, b station) int { return cmp.Compare(a.rate, b.rate) })
	return fmt.Sprintf("%s; that allows %s", least.name, gigabytes(least.rate))
}

// decoding returns the rate of computing the view by all readers, the source in memory.
func (r *benchReport) decoding() float64 {
	var most float64
	for _, m := range r.Measures {
		if m.Name == "virtual-warm" || strings.HasPrefix(m.Name, "virtual-warm-") {
			most = max(most, m.Median)
		}
	}
	return most
}

// String is the line of the report.
func (l *benchLoader) String() string {
	s := "a loader that maps files: " + gigabytes(l.Rate)
	if l.Ratio > 0 {
		s = fmt.Sprintf("a loader that maps files: %.2f of what disk and memory allow", l.Ratio)
	}
	if l.BoundBy != "" {
		s += "; it is bound by " + l.BoundBy
	}
	return s
}
