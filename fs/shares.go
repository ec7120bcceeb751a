package fs

import (
	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

// shares divides the memory of a mount. The plans of the views are not part of it.
type shares struct {
	requests    int // of the kernel, at once
	requestSize int // most bytes of one request
	blocks      int // of source bytes that are read ahead
	strips      int // of units, computed at once
	strip       int64

	grids, computed int64 // scale grids that are kept
	spare           int64 // garbage that is not collected yet
	cache           int64 // units of the tensor cache
	network         int64 // bytes of a source over a network
}

// bytes returns the sum of all shares.
func (s shares) bytes() int64 {
	return s.heap() + int64(s.blocks)*units.BufferSize + int64(s.strips)*s.strip + s.cache
}

// heap returns the part that the garbage collector manages. It includes the replies to requests and
// the buffers in which they are computed.
func (s shares) heap() int64 {
	return int64(s.requests)*int64(s.requestSize)*5/2 + s.grids + s.computed + s.spare +
		s.network
}

// reserved is for memory that is not counted: stacks, page tables, the kernel's part.
const reserved = 16 << 20

// leastShares returns shares that serve any number of readers, but slowly.
func leastShares(n needs) shares {
	s := shares{
		requests: 8, requestSize: 128 << 10, blocks: 0, strips: 2,
		strip: max(n.strip, units.BufferSize),
		grids: 1 << 20, computed: min(n.computed, 8<<20), spare: 8 << 20, cache: n.units,
	}
	if n.units > 0 { // each request may need units that another one has just evicted
		s.requests, s.requestSize = 4, requestSize
	}
	return s
}

const (
	maxBlocks = 32 // of source bytes, for all streams together: 64 MiB
	maxStrips = 32 // computed at once

	// The most bytes of scale grids, beside the tensor cache. The computed grids of DeepSeek-V3
	// have 160 MB.
	maxGrids    = 128 << 20
	maxComputed = 256 << 20
)

// mostShares returns shares beyond which reading gets no faster.
func mostShares(n needs, limit int64) shares {
	return shares{
		requests: background(), requestSize: requestSize,
		blocks: maxBlocks, strips: maxStrips, strip: max(n.strip, units.BufferSize),
		grids: maxGrids, computed: min(n.computed, maxComputed),
		spare: 64 << 20, cache: max(n.units, defaultCache(limit)),
	}
}

// between adds to least a part, from 0 to 1, of the difference between most and least.
func between(least, most shares, part float64) shares {
	at := func(a, b int64) int64 { return a + int64(part*float64(max(b-a, 0))) }
	num := func(a, b int) int { return int(at(int64(a), int64(b))) }
	s := shares{
		requestSize: most.requestSize,
		blocks:      num(least.blocks, most.blocks),
		strips:      num(least.strips, most.strips), strip: least.strip,
		grids: at(least.grids, most.grids), computed: at(least.computed, most.computed),
		spare: at(least.spare, most.spare), cache: at(least.cache, most.cache),
		network: least.network,
	}
	if part < 0.5 {
		// many small requests serve more readers than few large ones
		s.requestSize = least.requestSize
	}
	replies := num(least.requests*least.requestSize, most.requests*most.requestSize)
	s.requests = min(replies/s.requestSize, most.requests)
	return s
}

// needs is the memory that the views need in the caches.
type needs struct {
	units    int64 // bytes of units that one request needs at once
	computed int64 // bytes of all scale grids that are computed
	strip    int64 // most bytes from which one row of such a grid is computed
}

// needs looks at the beginning of each tensor. The rest of the tensor needs no more than that.
func (f *FS) needs() needs {
	var n needs
	f.eachFile(func(_, _ string, v *file) {
		for _, s := range v.segments[1:] {
			var bytes int64
			s.node.Units(0, min(s.node.Size(), requestSize), func(u *expr.Unit) bool {
				switch u.Key().Kind {
				case expr.Transposed:
					bytes += units.Memory(u.Size())
				case expr.Computed:
					n.computed += u.Size()
					n.strip = max(n.strip, stripOf(u.Key().Recipe))
				}
				return true
			})
			n.units = max(n.units, bytes)
		}
	})
	return n
}

// stripOf returns how many bytes of a matrix are in a row or a column of blocks. It returns the
// larger number.
func stripOf(n expr.Node) int64 {
	shape := n.Shape()
	return adapter.BlockSize * max(shape[0], shape[1]) * int64(n.DType().Bits()/8)
}

// fitAll makes the shares as large as the allowance permits. If even the least do not fit, it fails
// with a MemoryError.
func (f *FS) fitAll(a allowance) error {
	if f.fit(a, heapAtMost()) == nil && f.shares.blocks == maxBlocks {
		return nil // all shares are as large as they may be
	}
	return f.fit(a, heapInUse())
}

// fit chooses shares that fit into the allowance together with plans of so many bytes.
func (f *FS) fit(a allowance, plans int64) error {
	n := f.needs()
	least, most := leastShares(n), mostShares(n, a.bytes)
	if size := f.options.CacheSize; size > 0 {
		least.cache, most.cache = max(size, n.units), max(size, n.units)
	}
	least.network = f.networkMemory() // it was chosen when the source was opened
	most.network = least.network
	room := a.bytes - plans - reserved
	if short := least.bytes() - room; short > 0 {
		return tooLittle(a, short, plans)
	}
	part := 1.0
	if more := most.bytes() - least.bytes(); more > 0 {
		part = min(1, float64(room-least.bytes())/float64(more))
	}
	f.take(between(least, most, part), n)
	return nil
}

// take applies shares to the caches.
func (f *FS) take(s shares, n needs) {
	f.shares = s
	f.units.SetLimits(f.limits(s, n))
}

// limits returns the limits of the cache. With a negative cache size it keeps nothing.
func (f *FS) limits(s shares, n needs) units.Limits {
	if f.options.CacheSize < 0 {
		return units.Limits{Strips: s.strips}
	}
	return units.Limits{
		Units: s.cache, Request: n.units, Scales: s.grids, Computed: s.computed,
		Blocks: s.blocks, Strips: s.strips,
	}
}
