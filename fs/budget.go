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
	if kb := field(read, "/proc/meminfo", "MemTotal:"); kb > 0 {
		return kb << 10
	}
	return 8 << 30
}

// cgroupNames are the files of a memory cgroup.
type cgroupNames struct {
	root     string
	limits   []string
	usage    string
	inactive string // the line of memory.stat with the bytes of files that are not in active use
}

// cgroupFiles are those of each version. The key is true for version 1.
var cgroupFiles = map[bool]cgroupNames{
	false: {
		"/sys/fs/cgroup", []string{"memory.max", "memory.high"}, "memory.current", "inactive_file",
	},
	true: {
		"/sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes",
		"total_inactive_file",
	},
}

// cgroupLimit returns the least limit of the process's memory cgroup and of those above it. by is
// the file that sets it.
func cgroupLimit(read func(string) ([]byte, error)) (limit int64, by string) {
	limit = noLimit
	eachCgroup(read, func(dir string, files cgroupNames) {
		for _, name := range files.limits {
			file := path.Join(dir, name)
			if n, ok := number(read, file); ok && n > 0 && n < limit {
				limit, by = n, file
			}
		}
	})
	return limit, by
}

// eachCgroup visits the process's memory cgroup and those above it.
func eachCgroup(read func(string) ([]byte, error), visit func(dir string, files cgroupNames)) {
	data, _ := read("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[1] != "" && !strings.Contains(","+part[1]+",", ",memory,") {
			continue
		}
		files := cgroupFiles[part[1] != ""]
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			visit(path.Join(files.root, dir), files)
			if dir == "/" {
				break
			}
		}
	}
}

// available returns how many bytes of memory are free, or can be freed without writing anything, in
// the machine and in the process's cgroups.
func available(read func(string) ([]byte, error)) int64 {
	free := field(read, "/proc/meminfo", "MemAvailable:") << 10
	if free <= 0 {
		free = machineMemory(read) / 2
	}
	eachCgroup(read, func(dir string, files cgroupNames) {
		used, ok := number(read, path.Join(dir, files.usage))
		if !ok {
			return
		}
		used -= field(read, path.Join(dir, "memory.stat"), files.inactive)
		for _, name := range files.limits {
			if limit, ok := number(read, path.Join(dir, name)); ok && limit > 0 {
				free = min(free, max(limit-used, 0))
			}
		}
	})
	return free
}

// number returns the number in a file. It fails if there is none.
func number(read func(string) ([]byte, error), file string) (int64, bool) {
	text, _ := read(file)
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// field returns the number behind a name at the beginning of a line of a file, or 0.
func field(read func(string) ([]byte, error), file, name string) int64 {
	data, _ := read(file)
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			n, _ := strconv.ParseInt(words[1], 10, 64)
			return n
		}
	}
	return 0
}
