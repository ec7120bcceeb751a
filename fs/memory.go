package fs

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs/units"
)

// MemoryError is the error if a mount needs more memory than the process may use.
type MemoryError struct {
	By       string // the limit: a cgroup's file, a ulimit, or the machine
	Allowed  int64  // the value of the limit, in bytes
	Needed   int64  // the value that would be enough
	Plans    int64  // the part of Needed that the plans take
	Estimate bool   // made before planning; less may be enough
}

// Error names the limit, the need and the share of the plans.
func (e *MemoryError) Error() string {
	about := "least"
	if e.Estimate {
		about = "most"
	}
	return fmt.Sprintf("too little memory: %s allows %d MiB, but %d MiB are needed at %s, "+
		"of which the plans of the views take %d MiB",
		e.By, e.Allowed>>20, e.Needed>>20, about, e.Plans>>20)
}

// tooLittle returns the error for an allowance that is too small by short bytes. It rounds the need
// up, since the size of the plans varies a little.
func tooLittle(a allowance, short, plans int64) *MemoryError {
	const step = 4 << 20
	needed := (a.shown + short + 3*step/2) &^ (step - 1)
	return &MemoryError{By: a.by, Allowed: a.shown, Needed: needed, Plans: plans}
}

// Bytes that planning keeps: for each tensor of the source, and for each tensor in each view.
// planning is the memory that it needs besides.
const (
	perTensor = 700
	perView   = 200
	planning  = 8 << 20
)

// CheckMemory fails with a MemoryError if the process may not use enough memory to plan so many
// views of a checkpoint. Each view counts as adapter.Layout.Plans says. Without a checkpoint, it
// fails if nothing can be planned.
func CheckMemory(c *adapter.Checkpoint, views int) error {
	a, n, more := allowed(os.ReadFile), needs{}, int64(0)
	if c != nil {
		more = int64(len(c.Tensors())) * (perTensor + perView*int64(views))
		n.units = 2 * largestExpert(c)
	}
	if heapAtMost()+more+planning <= a.bytes {
		return nil
	}
	plans := heapInUse() + more
	if plans+planning <= a.bytes {
		return nil
	}
	err := tooLittle(a, plans+reserved+leastShares(n).bytes()-a.bytes, plans)
	err.Estimate = c != nil
	return err
}

// perByte is how many bytes of memory it takes to parse one byte of JSON.
const perByte = 5

// CheckReading fails with a MemoryError if the process may not use enough memory to parse so many
// bytes of JSON.
func CheckReading(bytes int64) error {
	a := allowed(os.ReadFile)
	if heapAtMost()+perByte*bytes+planning <= a.bytes {
		return nil
	}
	plans := heapInUse() + perByte*bytes
	if plans+planning <= a.bytes {
		return nil
	}
	return tooLittle(a, plans+reserved+leastShares(needs{}).bytes()-a.bytes, plans)
}

// largestExpert returns the memory that the largest matrix of an expert takes.
func largestExpert(c *adapter.Checkpoint) (most int64) {
	for _, t := range c.Tensors() {
		if strings.Contains(t.Key, ".experts.") && len(t.Shape) == 2 {
			most = max(most, units.Memory(t.Shape[0]*t.Shape[1]*int64(t.DType.Bits())/8))
		}
	}
	return most
}

// heapInUse returns the size of the heap after a garbage collection, which is slow.
func heapInUse() int64 {
	debug.FreeOSMemory()
	return heapAtMost()
}

// heapAtMost returns the size of the heap, garbage included.
func heapAtMost() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
