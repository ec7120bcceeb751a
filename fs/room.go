package fs

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// Room returns how many more bytes of files fit into memory before the kernel drops some of those
// that are wanted, and the limit that decides. held is how many wanted bytes are in memory, and
// brought how many of those this process has brought there.
//
// The kernel counts all of its cached files as available memory. So what is held must fit in there
// too. A cgroup is charged only for what its own processes have brought.
func Room(held, brought int64) (bytes int64, by string) { return room(os.ReadFile, held, brought) }

func room(read func(string) ([]byte, error), held, brought int64) (bytes int64, by string) {
	bytes, by = noLimit, "the machine"
	if n := field(read, "/proc/meminfo", "MemAvailable:") << 10; n > 0 {
		bytes = n - reserve(machineMemory(read)) - held
	}
	eachCgroup(read, func(dir string, files cgroupNames) {
		used, ok := number(read, path.Join(dir, files.usage))
		if !ok {
			return
		}
		for _, name := range files.cached() {
			used -= field(read, path.Join(dir, "memory.stat"), name)
		}
		for _, name := range files.limits {
			file := path.Join(dir, name)
			limit, ok := number(read, file)
			if n := limit - used - reserve(limit) - brought; ok && limit > 0 && n < bytes {
				bytes, by = n, fmt.Sprintf("%s (%d MiB)", file, limit>>20)
			}
		}
	})
	return bytes, by
}

// cached returns the lines of memory.stat with the bytes of cached files.
func (n cgroupNames) cached() []string {
	return []string{n.inactive, strings.Replace(n.inactive, "inactive", "active", 1)}
}

// reserve is how much of a limit stays free for the programs that read the files.
func reserve(limit int64) int64 { return min(max(limit/16, 16<<20), 1<<30) }
