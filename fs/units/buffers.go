package units

import (
	"math"
	"slices"
	"sync"
)

// buffers recycles the memory of units and of source bytes. If the system permits, this memory is
// outside the garbage-collected heap. Recycled buffers are not cleared.
type buffers struct {
	most int64 // bytes of free buffers that are kept

	mu    sync.Mutex
	list  [][]byte // oldest first
	held  int64
	freed bool
}

const (
	minMapped = 1 << 20  // smaller buffers are ordinary memory
	maxUnits  = 64 << 20 // the most memory of units that is kept, if the budget has room for it

	minKept = 8 // buffers for source bytes that are kept, at least and at most
	maxKept = 32
)

// buffersKept returns how many bytes of buffers for source bytes are kept: two buffers for each
// worker.
func buffersKept(workers int) int64 {
	return int64(min(max(2*workers, minKept), maxKept)) * BufferSize
}

// setMost changes how many bytes of free buffers are kept.
func (b *buffers) setMost(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most = n
	unmapAll(b.trim(n))
}

// get returns a buffer of n bytes.
func (b *buffers) get(n int64) []byte { return b.getWithin(n, math.MaxInt64) }

// getWithin returns a buffer of n bytes. Before it allocates, it frees buffers until at most keep
// bytes are left. Otherwise buffers of sizes that are not used any more would stay forever.
func (b *buffers) getWithin(n, keep int64) []byte {
	size := bufferSize(n)
	buf, excess := b.take(size, keep)
	unmapAll(excess)
	switch {
	case buf != nil:
		return buf[:n]
	case n < minMapped:
		return make([]byte, n)
	}
	return mapMemory(size)[:n]
}

// take removes the newest buffer of a size. If there is none, it removes the buffers beyond keep
// bytes.
func (b *buffers) take(size, keep int64) (buf []byte, excess [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, buf := range slices.Backward(b.list) {
		if int64(cap(buf)) == size {
			b.list = slices.Delete(b.list, i, i+1)
			b.held -= size
			return buf, nil
		}
	}
	return nil, b.trim(keep)
}

// trim removes the oldest buffers until no more than keep bytes are kept.
func (b *buffers) trim(keep int64) (excess [][]byte) {
	n := 0
	for ; b.held > keep; n++ {
		b.held -= int64(cap(b.list[n]))
	}
	excess = slices.Clone(b.list[:n])
	b.list = slices.Delete(b.list, 0, n)
	return excess
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	if len(buf) < minMapped {
		return
	}
	unmapAll(b.add(buf[:cap(buf)]))
}

func (b *buffers) add(buf []byte) (excess [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, buf)
	b.held += int64(len(buf))
	if b.freed {
		return b.trim(0)
	}
	return b.trim(b.most)
}

// free gives all memory back to the system.
func (b *buffers) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freed = true
	unmapAll(b.trim(0))
}

func unmapAll(list [][]byte) {
	for _, buf := range list {
		unmapMemory(buf)
	}
}

// bufferSize returns how much memory a buffer of n bytes takes. It is up to a third more than n if
// that makes all of it large pages, whose first use is faster. The budget counts this size.
func bufferSize(n int64) int64 {
	const small = 64 << 10
	switch large := (n + hugePage - 1) &^ (hugePage - 1); {
	case n < minMapped:
		return n
	case large-n <= n/3:
		return large
	}
	return (n + small - 1) &^ (small - 1)
}
