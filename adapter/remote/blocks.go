package remote

import (
	"slices"
	"sort"
	"strings"
	"sync"
)

// Sizes of blocks.
const (
	blockSize = 8 << 20   // at most
	smallSize = 256 << 10 // smaller tensors share a block
)

// table is the blocks of one file.
//
// The names of shards end in .safetensors. Until the places of their tensors are known, exact
// ranges are fetched, such as headers. All other files are divided into equal parts when they are
// first read.
type table struct {
	fetcher *fetcher
	object  *object

	// The fetcher's lock guards the rest.
	bounds []int64 // where blocks begin, and the end of the file; nil until the file is divided
	blocks map[int]*block
	exact  map[*block]bool // exact ranges that are being fetched
	active int             // reads
	closed bool
	left   sync.Cond // a read has ended
	asked  int64     // when bytes were last fetched ahead, in nanoseconds
}

func newTable(f *fetcher, o *object) *table {
	t := &table{fetcher: f, object: o, blocks: map[int]*block{}, exact: map[*block]bool{}}
	t.left.L = &f.mu
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables[t] = true
	return t
}

// cut tells where tensors begin. Blocks of an earlier division are freed once their readers leave.
func (t *table) cut(begins []int64) {
	b := bounds(t.object.size, begins)
	t.fetcher.mu.Lock()
	defer t.fetcher.mu.Unlock()
	old := t.blocks
	t.bounds, t.blocks = b, map[int]*block{}
	for _, b := range old {
		b.index = exactIndex
		t.exact[b] = true
		t.fetcher.settle(b)
	}
}

// bounds divides a file. A block ends where a tensor of at least smallSize begins, or after smaller
// tensors of that size in all. So a reader of single tensors gets few other bytes. Longer sections
// are divided into equal parts.
func bounds(size int64, begins []int64) []int64 {
	var all []int64
	begin := int64(0)
	for _, end := range append(sections(size, begins), size) {
		for _, at := range equal(end - begin) {
			all = append(all, begin+at)
		}
		begin = end
	}
	return append(all, size)
}

// equal returns where the parts of n bytes begin. They are equal but for one byte, and as few as
// blocks can hold them.
func equal(n int64) []int64 {
	parts := (n + blockSize - 1) / blockSize
	begins := make([]int64, parts)
	for i := range parts {
		begins[i] = i*(n/parts) + min(i, n%parts)
	}
	return begins
}

// sections returns where sections begin. The first one, at 0, is left out.
func sections(size int64, begins []int64) []int64 {
	begins = slices.Clone(begins)
	slices.Sort(begins)
	begins = slices.Compact(begins)
	var starts []int64
	small := int64(smallSize) // bytes of small tensors since the last large one; the header is one
	for i, at := range begins {
		end := size
		if i+1 < len(begins) {
			end = begins[i+1]
		}
		if at <= 0 || at >= size {
			continue
		}
		n := min(end, size) - at
		if n >= smallSize || small >= smallSize {
			starts = append(starts, at)
			small = 0
		}
		if n < smallSize {
			small += n
		}
	}
	return starts
}

// exactIndex is the index of a block that is not in the table.
const exactIndex = -1

// span is a range of a file, and its block.
type span struct {
	index  int
	off, n int64
}

// spans returns the blocks that [off, off+n) touches, in order.
func (t *table) spans(off, n int64) []span {
	if !t.divided() {
		return exactSpans(off, n)
	}
	first := sort.Search(len(t.bounds), func(i int) bool { return t.bounds[i] > off }) - 1
	var all []span
	for i := first; i+1 < len(t.bounds) && t.bounds[i] < off+n; i++ {
		all = append(all, span{i, t.bounds[i], t.bounds[i+1] - t.bounds[i]})
	}
	return all
}

// divided reports whether the file has blocks, and divides one that is not a shard.
func (t *table) divided() bool {
	if t.bounds == nil && !strings.HasSuffix(t.object.name, ".safetensors") {
		t.bounds = bounds(t.object.size, nil)
	}
	return t.bounds != nil
}

// exactSpans divides a range into equal parts.
func exactSpans(off, n int64) []span {
	var all []span
	begins := append(equal(n), n)
	for i, begin := range begins[:len(begins)-1] {
		all = append(all, span{exactIndex, off + begin, begins[i+1] - begin})
	}
	return all
}

// block returns the block of a span, which is made if it is not there.
func (t *table) block(s span) *block {
	if b := t.blocks[s.index]; b != nil {
		return b
	}
	b := &block{table: t, index: s.index, off: s.off, n: s.n}
	if s.index == exactIndex {
		t.exact[b] = true
	} else {
		t.blocks[s.index] = b
	}
	return b
}

// forget takes a block out of the table.
func (t *table) forget(b *block) {
	delete(t.exact, b)
	if t.blocks[b.index] == b {
		delete(t.blocks, b.index)
	}
}

// close ends all reads, and frees the blocks.
func (t *table) close() {
	f := t.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	t.closed = true
	delete(f.tables, t)
	delete(f.streams, t)
	t.failAll()
	f.schedule()
	for t.active > 0 {
		t.left.Wait()
	}
}

// failAll ends all reads.
func (t *table) failAll() {
	for _, b := range t.blocks {
		t.fetcher.fail(b, errClosed)
	}
	for b := range t.exact {
		t.fetcher.fail(b, errClosed)
	}
}
