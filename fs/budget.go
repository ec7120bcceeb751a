package fs

import (
	"os"
	"path"
	"strconv"
	"strings"
)

const maxDefaultCache = 16 << 30

// DefaultCacheSize returns a tenth of the memory that the process may use, at most 16 GiB.
func DefaultCacheSize() int64 { return defaultCache(allowed(os.ReadFile).bytes) }

func defaultCache(allowed int64) int64 { return min(allowed/10, maxDefaultCache) }

// AllowedMemory returns how many bytes of memory the process may use, and the name of the limit.
func AllowedMemory() (bytes int64, by string) {
	a := allowed(os.ReadFile)
	return a.bytes, a.by
}

// allowance is how much memory the process may use.
type allowance struct {
	bytes int64
	by    string // the limit: a cgroup's file, a ulimit, or the machine
	shown int64  // the value of that limit
}

// allowed returns the smaller of the machine's memory and the limit of the process's cgroups.
func allowed(read func(string) ([]byte, error)) allowance {
	a := allowance{bytes: machineMemory(read), by: "the machine"}
	if limit, by := cgroupLimit(read); limit < a.bytes {
		a.bytes, a.by = limit, by
	}
	a.shown = a.bytes
	return a
}

// least returns the smaller allowance.
func least(a, b allowance) allowance {
	if b.bytes < a.bytes {
		return b
	}
	return a
}

const noLimit = 1 << 62

// machineMemory returns MemTotal, or 8 GiB if it is not known.
func machineMemory(read func(string) ([]byte, error)) int64 {
	data, _ := read("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if kb, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64); err == nil &&
				kb > 0 {
				return kb << 10
			}
		}
	}
	return 8 << 30
}

// cgroupFiles are the files with the limits of memory cgroups. The key is true for version 1.
var cgroupFiles = map[bool]struct {
	root  string
	names []string
}{
	false: {"/sys/fs/cgroup", []string{"memory.max", "memory.high"}},
	true:  {"/sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}},
}

// memoryGroup is a memory cgroup of the process, or one above it.
type memoryGroup struct {
	dir string
	v1  bool // version 1
}

// cgroups returns the memory cgroups of the process, and those above them.
func cgroups(read func(string) ([]byte, error)) (all []memoryGroup) {
	data, _ := read("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[1] != "" && !strings.Contains(","+part[1]+",", ",memory,") {
			continue
		}
		root := cgroupFiles[part[1] != ""].root
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			all = append(all, memoryGroup{path.Join(root, dir), part[1] != ""})
			if dir == "/" {
				break
			}
		}
	}
	return all
}

// limit returns the least limit of the cgroup, and the file that sets it.
func (g memoryGroup) limit(read func(string) ([]byte, error)) (limit int64, by string) {
	limit = noLimit
	for _, name := range cgroupFiles[g.v1].names {
		file := path.Join(g.dir, name)
		text, _ := read(file)
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n > 0 && n < limit {
			limit, by = n, file
		}
	}
	return limit, by
}

// cgroupLimit returns the least limit of the process's memory cgroup and of those above it. by is
// the file that sets it.
func cgroupLimit(read func(string) ([]byte, error)) (limit int64, by string) {
	limit = noLimit
	for _, g := range cgroups(read) {
		if n, file := g.limit(read); n < limit {
			limit, by = n, file
		}
	}
	return limit, by
}
