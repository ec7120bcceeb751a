package remote

import (
	"container/list"
	"os"
	"strconv"
	"strings"
	"time"
)

// mostMemory is the most memory that is used for blocks by default.
const mostMemory = 1 << 30

// defaultMemory returns a tenth of the machine's memory, at most mostMemory.
func defaultMemory(read func(string) ([]byte, error)) int64 {
	data, _ := read("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		kb, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
		if ok && err == nil && kb > 0 {
			return min(kb<<10/10, mostMemory)
		}
	}
	return mostMemory / 2
}

func memoryOf(o Options) int64 {
	if o.Memory > 0 {
		return o.Memory
	}
	return defaultMemory(os.ReadFile)
}

// memory is the budget of all blocks. Blocks that no reader uses are evicted in this order: those
// that were read to their ends, those that were read in part, and those that were fetched ahead.
// Blocks are fetched ahead only in place of the first, and of the second if these were not used for
// a while. A reader that waits may have the memory of all.
type memory struct {
	most int64
	used int64 // of blocks

	free      map[int64][][]byte // buffers without a block, by size
	freeBytes int64

	spent, part, early *list.List // full blocks that no reader uses
}

func newMemory(most int64) *memory {
	return &memory{most: most, free: map[int64][][]byte{},
		spent: list.New(), part: list.New(), early: list.New()}
}

// roomy rounds the size of a buffer up, so that it fits more blocks later.
func roomy(n int64) int64 {
	step := int64(4 << 10)
	for step*16 < n {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// spentShare is the share of the budget above which blocks that were read to the end give up their
// memory, although there is more, once the disk cache has them. Memory that is used again needs not
// be cleared by the kernel.
const spentShare = 4

// spentOnDisk is the same for blocks that came from the disk cache. If they are read again, that
// takes little.
const spentOnDisk = 16

// share is the share of the budget above which a spent block gives up its memory.
func (b *block) share() int64 {
	if b.onDisk {
		return spentOnDisk
	}
	return spentShare
}

// take returns a buffer of at least n bytes, or nil if it has to wait. A buffer that is larger than
// the whole budget is given if it is the only one.
func (f *fetcher) take(n int64, ahead bool) []byte {
	m := f.memory
	n = roomy(n)
	if b := at(m.spent.Front()); b != nil && !b.unkept && m.used+n > m.most/b.share() {
		f.drop(b)
	}
	for {
		if l := m.free[n]; len(l) > 0 {
			m.free[n] = l[:len(l)-1]
			m.freeBytes -= n
			m.used += n
			return l[len(l)-1]
		}
		switch {
		case m.used+m.freeBytes+n <= m.most:
			m.used += n
			return make([]byte, n)
		case m.freeBytes > 0:
			m.dropFree()
		case f.evict(ahead):
		case m.used == 0 && !ahead:
			m.used += n
			return make([]byte, n)
		default:
			return nil
		}
	}
}

// dropFree leaves one buffer to the garbage collector.
func (m *memory) dropFree() {
	for n, l := range m.free {
		if len(l) == 0 {
			delete(m.free, n)
			continue
		}
		l[len(l)-1] = nil
		m.free[n] = l[:len(l)-1]
		m.freeBytes -= n
		return
	}
}

// idle puts a full block where it waits for its eviction.
func (m *memory) idle(b *block, now time.Time) {
	b.used = now
	switch {
	case b.spent():
		b.move(m.spent, false)
	case b.early:
		b.move(m.early, b.read > 0) // the end of the list is evicted first
	default:
		b.move(m.part, false)
	}
}

// rest frees the memory of all blocks that were not used for a while.
func (f *fetcher) rest() {
	m := f.memory
	f.age(time.Now())
	for _, l := range []*list.List{m.spent, m.part} {
		for b := at(l.Front()); b != nil; b = at(l.Front()) {
			f.drop(b)
		}
	}
	clear(m.free)
	m.freeBytes = 0
}

// give takes a buffer back.
func (m *memory) give(buf []byte) {
	n := int64(len(buf))
	m.used -= n
	if m.used+m.freeBytes+n > m.most {
		return
	}
	m.free[n] = append(m.free[n], buf)
	m.freeBytes += n
}

// evict frees one block, and reports whether there was one.
func (f *fetcher) evict(ahead bool) bool {
	m := f.memory
	victim := at(m.spent.Front())
	if victim == nil {
		f.age(time.Now())
		victim = at(m.part.Front())
		if ahead && victim != nil && time.Since(victim.used) < f.times.recent {
			return false
		}
	}
	if victim == nil && !ahead {
		victim = f.latestAhead()
	}
	if victim == nil {
		return false
	}
	f.drop(victim)
	return true
}

// latestAhead returns the block that was fetched ahead last, since it is needed last. Blocks that
// only wait for a request come first.
func (f *fetcher) latestAhead() *block {
	for _, q := range []*queue{&f.requests, &f.looks} {
		if b := at(q.ahead.Back()); b != nil {
			return b
		}
	}
	return at(f.memory.early.Back())
}

// age makes blocks that were fetched ahead, but not used for a while, ordinary ones. Otherwise
// those of a reader that has stopped, or skips parts of blocks, would take up the memory.
func (f *fetcher) age(now time.Time) {
	m := f.memory
	for e := m.early.Front(); e != nil; {
		b := at(e)
		e = e.Next()
		limit := f.times.stale
		if b.read > 0 {
			limit = f.times.recent
		}
		if now.Sub(b.used) > limit {
			b.early = false
			b.move(m.part, true)
		}
	}
}
