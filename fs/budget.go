package fs

import (
	"os"
	"path"
	"strconv"
	"strings"
)

const maxDefaultCache = 16 << 30

// DefaultCacheSize is a tenth of the memory that the process may use, at most 16 GiB.
func DefaultCacheSize() int64 { return defaultCache(allowed(os.ReadFile).bytes) }

func defaultCache(allowed int64) int64 { return min(allowed/10, maxDefaultCache) }

// AllowedMemory is how many bytes of memory the process may use, and what allows no more.
func AllowedMemory() (bytes int64, by string) {
	a := allowed(os.ReadFile)
	return a.bytes, a.by
}

// allowance is how much memory the process may use.
type allowance struct {
	bytes int64
	by    string // what allows no more
	shown int64  // the number that it is set to
}

// allowed is the least of what the machine has and what the process's cgroups allow.
func allowed(read func(string) ([]byte, error)) allowance {
	a := allowance{bytes: machineMemory(read), by: "the machine"}
	if limit, by := cgroupLimit(read); limit < a.bytes {
		a.bytes, a.by = limit, by
	}
	a.shown = a.bytes
	return a
}

// least gives the one that allows less.
func least(a, b allowance) allowance {
	if b.bytes < a.bytes {
		return b
	}
	return a
}

const noLimit = 1 << 62

// machineMemory is MemTotal; where it is not known, as much as makes the largest default.
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

// cgroupFiles are where memory cgroups say their limits, by whether they are of version 1.
var cgroupFiles = map[bool]struct {
	root  string
	names []string
}{
	false: {"/sys/fs/cgroup", []string{"memory.max", "memory.high"}},
	true:  {"/sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}},
}

// cgroupLimit is the least limit of the process's memory cgroup and those above it, v2 or v1, and
// where it is set.
func cgroupLimit(read func(string) ([]byte, error)) (limit int64, by string) {
	limit = noLimit
	data, _ := read("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[1] != "" && !strings.Contains(","+part[1]+",", ",memory,") {
			continue
		}
		files := cgroupFiles[part[1] != ""]
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			for _, name := range files.names {
				file := path.Join(files.root, dir, name)
				text, _ := read(file)
				n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err == nil && n > 0 && n < limit {
					limit, by = n, file
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit, by
}
