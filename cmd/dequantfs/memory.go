package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/dequantfs/dequantfs/fs"
)

// setAside is the memory of a process that the garbage collector does not manage, before it serves.
const setAside = 24 << 20

// boundPlanning has the garbage collector work harder where there is little memory, so that
// planning leaves no more garbage than there is room for.
func boundPlanning() {
	allowed, _ := fs.AllowedMemory()
	boundMemory(max(allowed-setAside, setAside))
}

// spareMemory is the memory that a mount may take beyond its plans, its cache and the kernel's
// requests.
const spareMemory = 64 << 20

// boundServing has the garbage collector keep to its share of memory, once all other shares are
// known. Where there is plenty, it keeps the process near its size after planning, so that memory
// stays flat.
func boundServing(m *fs.Mount) {
	debug.FreeOSMemory() // planning leaves as much behind as it keeps
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	boundMemory(min(m.Heap(), int64(now.Sys-now.HeapReleased)+fs.RequestMemory()+spareMemory))
}

// boundMemory has the garbage collector keep its memory within a number of bytes: with readers
// that jump about, each of which the kernel reads ahead for, it would let replies pile up. If
// GOMEMLIMIT is set, that is left as it is.
func boundMemory(bytes int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}
