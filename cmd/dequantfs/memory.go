package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/dequantfs/dequantfs/fs"
)

// spareMemory is what a mount may take beyond its plans, its cache and the kernel's requests.
const spareMemory = 64 << 20

// boundMemory has the garbage collector keep the process near what it has after mounting. The cache's
// units are not its business. Replies to the kernel are: with readers that jump about, and so a read-ahead of
// 16 MiB for each jump, a process with a cache of 64 MiB grew to 530 MB, and with this to 220 MB at the same speed.
// Who sets GOMEMLIMIT knows better.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.FreeOSMemory() // planning leaves as much behind as it keeps
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + fs.RequestMemory() + spareMemory)
}
