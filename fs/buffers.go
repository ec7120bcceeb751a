package fs

import "sync"

// buffers recycles the memory of units, outside of the garbage collector's heap
// where the system allows. Buffers come back dirty.
type buffers struct {
	mu    sync.Mutex
	list  [][]byte
	held  int64
	freed bool
}

const (
	minMapped  = 1 << 20  // smaller buffers are ordinary memory
	maxBuffers = 64 << 20 // most that the free list keeps
)

// get gives a buffer of n bytes.
func (b *buffers) get(n int64) []byte {
	if n < minMapped {
		return make([]byte, n)
	}
	size := (n + hugePage - 1) &^ (hugePage - 1)
	b.mu.Lock()
	for i, buf := range b.list {
		if int64(cap(buf)) == size {
			last := len(b.list) - 1
			b.list[i] = b.list[last]
			b.list = b.list[:last]
			b.held -= size
			b.mu.Unlock()
			return buf[:n]
		}
	}
	b.mu.Unlock()
	return mapMemory(size)[:n]
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	size := int64(cap(buf))
	if len(buf) < minMapped {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.list) > 0 && b.held+size > maxBuffers {
		b.held -= int64(cap(b.list[0]))
		unmapMemory(b.list[0])
		b.list = b.list[1:]
	}
	if b.freed {
		unmapMemory(buf[:size])
		return
	}
	b.list = append(b.list, buf[:size])
	b.held += size
}

// free gives all memory back to the system.
func (b *buffers) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, buf := range b.list {
		unmapMemory(buf)
	}
	b.list, b.held, b.freed = nil, 0, true
}
