package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/dequantfs/dequantfs/fs"
)

// setAside is the memory of a process that the garbage collector does not manage, before the
// process serves a mount.
const setAside = 24 << 20

// boundPlanning makes the garbage collector work harder if there is little memory, so planning
// leaves no more garbage than there is room for.
func boundPlanning() {
	allowed, _ := fs.AllowedMemory()
	boundMemory(max(allowed-setAside, setAside))
}

// spareMemory is the memory that a mount may take beyond its plans, its cache and the kernel's
// requests.
const spareMemory = 64 << 20

// boundServing limits the garbage collector to its share of memory when all other shares are known.
// With plenty of memory, it keeps the process near its size after planning, so memory stays flat.
func boundServing(m *fs.Mount) {
	debug.FreeOSMemory() // planning leaves as much garbage as it keeps
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	boundMemory(min(m.Heap(),
		int64(now.Sys-now.HeapReleased)+fs.RequestMemory()+m.NetworkMemory()+spareMemory))
}

// boundMemory limits the garbage-collected memory to a number of bytes. Without a limit, replies
// pile up for random reads, for each of which the kernel reads ahead. If GOMEMLIMIT is set, it is
// left unchanged.
func boundMemory(bytes int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}
