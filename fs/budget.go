package fs

import (
	"os"
	"path"
	"strconv"
	"strings"
)

const maxDefaultCache = 16 << 30

// DefaultCacheSize is a tenth of the memory that the process may use (its cgroup's limit, or the
// machine's), at most 16 GiB.
func DefaultCacheSize() int64 {
	memory := min(machineMemory(os.ReadFile), cgroupLimit(os.ReadFile))
	return min(memory/10, maxDefaultCache)
}

const noLimit = 1 << 62

// machineMemory is MemTotal; where it is not known, as much as makes the largest default.
func machineMemory(read func(string) ([]byte, error)) int64 {
	data, _ := read("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if kb, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64); err == nil && kb > 0 {
				return kb << 10
			}
		}
	}
	return 8 << 30
}

// cgroupLimit is the least limit of the process's memory cgroup and those above it, v2 or v1.
func cgroupLimit(read func(string) ([]byte, error)) int64 {
	limit := int64(noLimit)
	data, _ := read("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		root, name := "/sys/fs/cgroup", "memory.max"
		if part[1] != "" {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			text, _ := read(path.Join(root, dir, name))
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}
