package fs

import (
	"os"
	"testing"
)

func TestMemoryOfTheProcess(t *testing.T) {
	for name, test := range map[string]struct {
		files          map[string]string
		machine, limit int64
		by             string
	}{
		"no limit": {map[string]string{
			"/proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n", "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n",
		}, 16 << 20, noLimit, ""},
		"v2": {map[string]string{
			"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.max": "4096\n",
		}, 8 << 30, 4096, "/sys/fs/cgroup/a/memory.max"},
		"v2, throttled": {map[string]string{
			"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "8192\n", "/sys/fs/cgroup/a/memory.high": "4096\n",
		}, 8 << 30, 4096, "/sys/fs/cgroup/a/memory.high"},
		"v1": {map[string]string{
			"/proc/self/cgroup": "8:pids:/x\n4:cpu,memory:/job\n0::/\n",
			"/sys/fs/cgroup/memory/job/memory.limit_in_bytes":      "536870912\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
			"/sys/fs/cgroup/memory/x/memory.limit_in_bytes":        "1\n",
			"/sys/fs/cgroup/memory/unrelated/memory.limit_in_byte": "1\n",
		}, 8 << 30, 512 << 20, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes"},
		"nothing known": {nil, 8 << 30, noLimit, ""},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				if text, ok := test.files[name]; ok {
					return []byte(text), nil
				}
				return nil, os.ErrNotExist
			}
			if got := machineMemory(read); got != test.machine {
				t.Errorf("machine: %d, want %d", got, test.machine)
			}
			if got, by := cgroupLimit(read); got != test.limit || by != test.by {
				t.Errorf("cgroup: %d by %s, want %d by %s", got, by, test.limit, test.by)
			}
			want := allowance{test.limit, test.by, test.limit}
			if test.machine < test.limit {
				want = allowance{test.machine, "the machine", test.machine}
			}
			if got := allowed(read); got != want {
				t.Errorf("allowed: %+v, want %+v", got, want)
			}
		})
	}
}

func TestDefaultCacheSizeIsSensible(t *testing.T) {
	if n := DefaultCacheSize(); n <= 0 || n > maxDefaultCache {
		t.Errorf("%d", n)
	}
}

func TestAvailableMemory(t *testing.T) {
	const meminfo = "MemTotal: 16384 kB\nMemFree: 1 kB\nMemAvailable: 8192 kB\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no limit": {map[string]string{"/proc/meminfo": meminfo}, 8 << 20},
		"v2, above": {map[string]string{
			"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a/b\n",
			"/sys/fs/cgroup/a/b/memory.max":     "max\n",
			"/sys/fs/cgroup/a/b/memory.current": "1000\n",
			"/sys/fs/cgroup/a/memory.max":       "5000\n",
			"/sys/fs/cgroup/a/memory.current":   "4000\n",
			"/sys/fs/cgroup/a/memory.stat":      "anon 9\nactive_file 7\ninactive_file 300\n",
		}, 1300},
		"v2, throttled": {map[string]string{
			"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a\n",
			"/sys/fs/cgroup/a/memory.high":    "3000\n",
			"/sys/fs/cgroup/a/memory.current": "4000\n",
		}, 0},
		"v1": {map[string]string{
			"/proc/meminfo": meminfo, "/proc/self/cgroup": "4:cpu,memory:/job\n0::/\n",
			"/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "5000\n",
			"/sys/fs/cgroup/memory/job/memory.usage_in_bytes": "4000\n",
			"/sys/fs/cgroup/memory/job/memory.stat":           "total_inactive_file 500\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
			"/sys/fs/cgroup/memory/memory.usage_in_bytes":     "7000\n",
		}, 1500},
		"nothing known": {nil, 4 << 30},
	} {
		read := func(name string) ([]byte, error) {
			if text, ok := test.files[name]; ok {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		}
		if got := available(read); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
