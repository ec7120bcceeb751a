package fs

import (
	"fmt"
	"os"
	"path"
	"strconv"
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
	info := numbers(read, "/proc/meminfo")
	if n, ok := info["MemAvailable:"]; ok {
		bytes = n<<10 - reserve(machineMemory(read)) - held
	}
	for _, g := range cgroups(read) {
		n, name := g.room(read)
		if n -= brought; n < bytes {
			bytes, by = n, name
		}
	}
	return bytes, by
}

// reserve is how much of a limit stays free for the programs that read the files.
func reserve(limit int64) int64 { return min(max(limit/16, 16<<20), 1<<30) }

// cgroupUsage are the files with the use of memory cgroups, and the lines of memory.stat that count
// cached files. The key is true for version 1.
var cgroupUsage = map[bool]struct {
	name  string
	files [2]string
}{
	false: {"memory.current", [2]string{"inactive_file", "active_file"}},
	true:  {"memory.usage_in_bytes", [2]string{"total_inactive_file", "total_active_file"}},
}

// room returns how many bytes of files fit into the cgroup, cached ones included, and the limit.
func (g memoryGroup) room(read func(string) ([]byte, error)) (bytes int64, by string) {
	limit, file := g.limit(read)
	if limit == noLimit {
		return noLimit, ""
	}
	usage := cgroupUsage[g.v1]
	text, err := read(path.Join(g.dir, usage.name))
	used, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || bad != nil {
		return noLimit, ""
	}
	stat := numbers(read, path.Join(g.dir, "memory.stat"))
	for _, name := range usage.files {
		used -= stat[name]
	}
	return limit - used - reserve(limit), fmt.Sprintf("%s (%d MiB)", file, limit>>20)
}

// numbers reads a file with a name and a number in each line.
func numbers(read func(string) ([]byte, error), name string) map[string]int64 {
	all := map[string]int64{}
	data, _ := read(name)
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
			all[words[0]] = n
		}
	}
	return all
}
