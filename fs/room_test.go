package fs

import (
	"os"
	"testing"
)

// TestRoomIsWhatTheTightestLimitLeaves compares Room with sums made by hand.
func TestRoomIsWhatTheTightestLimitLeaves(t *testing.T) {
	const kb, mb, gb = 1 << 10, 1 << 20, 1 << 30
	machine := "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n" // 16, 8 GiB
	v2 := map[string]string{
		"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n",
		"/sys/fs/cgroup/a/b/memory.max":     "max\n",
		"/sys/fs/cgroup/a/memory.max":       "1073741824\n", // 1 GiB
		"/sys/fs/cgroup/a/memory.current":   "943718400\n",  // 900 MiB
		"/sys/fs/cgroup/a/memory.stat":      "anon 5\ninactive_file 104857600\nactive_file 314572800\n",
		"/sys/fs/cgroup/a/b/memory.current": "1\n",
	}
	v1 := map[string]string{
		"/proc/meminfo": machine, "/proc/self/cgroup": "4:memory:/job\n",
		"/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "134217728\n", // 128 MiB
		"/sys/fs/cgroup/memory/job/memory.usage_in_bytes": "83886080\n",  // 80 MiB
		"/sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 20971520\n" +
			"total_active_file 10485760\n", // 30 MiB
		"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
	}
	for name, c := range map[string]struct {
		files         map[string]string
		held, brought int64
		want          int64
		by            string
	}{
		"nothing known": {nil, gb, gb, noLimit, "the machine"},
		"machine": {map[string]string{"/proc/meminfo": machine}, 3 * gb, gb,
			8*gb - gb - 3*gb, "the machine"},
		"machine, full": {map[string]string{"/proc/meminfo": machine}, 8 * gb, 0, -gb, "the machine"},
		"v2": {v2, 2 * gb, 200 * mb, (1024-(900-400)-64)*mb - 200*mb,
			"/sys/fs/cgroup/a/memory.max (1024 MiB)"},
		"v2, the machine is tighter": {v2, 7*gb - 4*kb, 0, 4 * kb, "the machine"},
		"v1": {v1, 0, 10 * mb, (128-(80-30)-16)*mb - 10*mb,
			"/sys/fs/cgroup/memory/job/memory.limit_in_bytes (128 MiB)"},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				if text, ok := c.files[name]; ok {
					return []byte(text), nil
				}
				return nil, os.ErrNotExist
			}
			if got, by := room(read, c.held, c.brought); got != c.want || by != c.by {
				t.Errorf("%d by %s, want %d by %s", got, by, c.want, c.by)
			}
		})
	}
}
