package fs

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
)

// MemoryError says that a mount needs more memory than there may be.
type MemoryError struct {
	By       string // what allows no more
	Allowed  int64  // what it is set to, in bytes
	Needed   int64  // what it would have to be set to
	Plans    int64  // the part of it that is taken by what is known of the tensors
	Estimate bool   // nothing was planned yet, and less may do
}

func (e *MemoryError) Error() string {
	about := "least"
	if e.Estimate {
		about = "most"
	}
	return fmt.Sprintf("too little memory: %s allows %d MiB, but %d MiB are needed at %s, of which what is known of the tensors takes %d MiB",
		e.By, e.Allowed>>20, e.Needed>>20, about, e.Plans>>20)
}

// tooLittle is the error of an allowance that is short of some bytes. What is needed is rounded up:
// the plans do not take quite the same each time.
func tooLittle(a allowance, short, plans int64) *MemoryError {
	const step = 4 << 20
	return &MemoryError{By: a.by, Allowed: a.shown, Needed: (a.shown + short + 3*step/2) &^ (step - 1), Plans: plans}
}

// What planning keeps of each tensor of the source, once and for each view, and what it needs
// besides.
const (
	perTensor = 700
	perView   = 200
	planning  = 8 << 20
)

// CheckMemory fails with a MemoryError if a checkpoint cannot be planned in so many views within
// the memory that the process may use. Each view counts as adapter.Layout.Plans says. Without a
// checkpoint, it fails if nothing can be planned.
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

// perByte is how many bytes it takes to read one of JSON.
const perByte = 5

// CheckReading fails with a MemoryError if so many bytes of JSON cannot be read within the memory
// that the process may use.
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

// largestExpert is the memory that the largest matrix of an expert takes.
func largestExpert(c *adapter.Checkpoint) (most int64) {
	for _, t := range c.Tensors() {
		if strings.Contains(t.Key, ".experts.") && len(t.Shape) == 2 {
			most = max(most, bufferSize(t.Shape[0]*t.Shape[1]*int64(t.DType.Bits())/8))
		}
	}
	return most
}

// heapInUse is what is left of the heap once garbage is thrown out, which takes a while.
func heapInUse() int64 {
	debug.FreeOSMemory()
	return heapAtMost()
}

// heapAtMost is the heap with its garbage.
func heapAtMost() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
