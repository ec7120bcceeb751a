package fs

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Address space kept free beyond what is counted: the heap grows by arenas of 64 MiB, and each
// thread may have a stack of 8 MiB.
const (
	arenas      = 3 * 64 << 20
	stacks      = 64 * 8 << 20
	addressRest = arenas + stacks
)

// addressLimits are the limits of ulimit -v and -d.
var addressLimits = []struct {
	resource int
	name     string
	used     string // the line of /proc/self/status that counts against it
}{
	{unix.RLIMIT_AS, "ulimit -v", "VmSize:"},
	{unix.RLIMIT_DATA, "ulimit -d", "VmData:"},
}

// addressSpace returns how much memory the process may use within its limits of address space.
func addressSpace() allowance {
	a := allowance{bytes: noLimit}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return a
	}
	for _, l := range addressLimits {
		var limit unix.Rlimit
		if unix.Getrlimit(l.resource, &limit) != nil || limit.Cur > noLimit {
			continue
		}
		more := int64(limit.Cur) - kilobytes(string(status), l.used) - addressRest
		a = least(a, allowance{bytes: heapInUse() + reserved + more, by: l.name,
			shown: int64(limit.Cur)})
	}
	return a
}

// kilobytes finds a line of /proc/self/status and returns its value in bytes.
func kilobytes(status, name string) int64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
			return n << 10
		}
	}
	return 0
}
