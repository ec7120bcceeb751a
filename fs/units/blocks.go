package units

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

const (
	minBlock = 64 << 10 // smaller ranges are not read ahead
	blockAge = 4096     // an unused block may be replaced after so many reads
)

// blocks are source bytes that were read ahead of streams of row-contiguous recipes. When a stream
// gets there, they are lent to the recipe. A block is freed when all its bytes have been lent.
//
// Read-ahead errors are dropped. A reader that finds no block reads for itself and reports its own
// error.
//
// The alternative is POSIX_FADV_WILLNEED. With it, Linux fills its page cache with single pages
// instead of large folios, which costs more processor time. With a slow source, the stream would
// also still have to wait.
type blocks struct {
	cache       *Cache
	max         int   // the most blocks
	size, least int64 // the largest and the smallest block

	mu      sync.Mutex
	list    []*block
	paces   map[expr.File]*pace
	closed  bool
	reading sync.WaitGroup
}

// block is a range of a source file.
type block struct {
	of     *blocks
	file   expr.File
	off, n int64
	buf    []byte        // of BufferSize bytes
	bytes  []byte        // the n bytes in it; set once it is read
	done   chan struct{} // closed when it is read or has failed
	begun  bool          // reading has begun
	failed bool
	pins   int   // including that of the goroutine that reads it
	left   int64 // bytes that were not lent yet

	where File  // the file that the stream reads
	run   Run   // of the stream
	end   int64 // offset in where at which the stream needs the block no more
}

func newBlocks(c *Cache, t Tuning) *blocks {
	return &blocks{
		cache: c, size: cmp.Or(t.Block, fetchSize), least: cmp.Or(t.MinBlock, minBlock),
		paces: map[expr.File]*pace{},
	}
}

// setMax changes how many blocks there may be.
func (b *blocks) setMax(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max = n
}

// fetch begins to read a range of a source file ahead of the stream of a read. The stream needs the
// range until it gets to end in its own file. It reports whether there was room.
//
// Bytes in the page cache are left there. Recipes read them in small pieces, which stay in the
// cache of the core until they are decoded. Files over a network keep what they fetch, so they need
// no block.
func (b *blocks) fetch(r *Read, f expr.File, off, n, end int64) bool {
	if a, ok := f.(expr.AheadFile); ok {
		return a.Ahead(off, n)
	}
	if d, ok := f.(expr.DirectFile); ok && d.Cached(off, n) {
		return true
	}
	for ; n >= b.least; off, n = off+b.size, n-b.size {
		if !b.start(r, f, off, min(n, b.size), end) {
			return false
		}
	}
	return true
}

func (b *blocks) start(r *Read, f expr.File, off, n, end int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, gap := b.at(f, off, n); k != nil || gap < n {
		return true // another stream has a block here
	}
	if b.closed || b.cache.files.isStalled(f) || r.Modest && len(b.list) >= b.max/2 || !b.room() {
		return false
	}
	b.list = append(b.list, &block{
		of: b, file: f, off: off, n: n, left: n, pins: 1,
		buf: b.cache.files.buffers.get(BufferSize), done: make(chan struct{}),
		where: r.file, run: r.run, end: end,
	})
	b.reading.Add(1)
	b.next(f)
	return true
}

// next begins to read the next blocks of a file, in the order of the file. That order is faster on
// disks and lets servers read ahead.
func (b *blocks) next(f expr.File) {
	pace := b.paceOf(f)
	for _, k := range b.list {
		if pace.reading >= pace.depth() {
			return
		}
		if k.file == f && !k.begun {
			k.begun = true
			pace.reading++
			go b.fill(k)
		}
	}
}

// The least and the most blocks of one file that are read at once. The depth is one for each
// millisecond that a read takes, which keeps the file busy.
const (
	minDepth = 4
	maxDepth = 16
)

// pace records how fast the blocks of a file are read. It is guarded by blocks.mu.
type pace struct {
	reading int           // blocks that are being read
	took    time.Duration // by recent reads
}

// paceOf returns the pace of a file.
func (b *blocks) paceOf(f expr.File) *pace {
	p := b.paces[f]
	if p == nil {
		p = new(pace)
		b.paces[f] = p
	}
	return p
}

// depth returns how many blocks of a file are read at once.
func (p *pace) depth() int {
	return int(min(max(p.took/time.Millisecond, minDepth), maxDepth))
}

// note records how long a read took.
func (p *pace) note(took time.Duration) { p.took += (took - p.took) / 4 }

// room makes room for a block. If necessary it removes a block that was not used in time.
func (b *blocks) room() bool {
	if len(b.list) < b.max {
		return true
	}
	for _, k := range b.list {
		if k.pins == 0 && k.unused() {
			b.remove(k)
			return true
		}
	}
	return false
}

// unused reports whether the stream of the block has passed it or has stopped.
func (k *block) unused() bool {
	return k.where.Beyond(k.run, k.end+behind) || k.of.cache.clock.Load()-k.run.Clock > blockAge
}

// fill reads a block.
func (b *blocks) fill(k *block) {
	defer b.reading.Done()
	begin := time.Now()
	err := b.read(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	pace := b.paceOf(k.file)
	pace.reading--
	took := time.Since(begin)
	pace.note(took)
	if took > b.cache.guard.slowAfter {
		b.cache.guard.slowly("reading ahead of the source took long",
			slog.String("file", k.file.Name()), slog.Int64("offset", k.off),
			slog.Duration("after", took))
	}
	b.next(k.file)
	if err != nil {
		k.failed = true
		b.unlist(k)
	}
	close(k.done)
	b.unpin(k)
}

func (b *blocks) read(k *block) (err error) {
	defer b.cache.guard.recover("reading ahead of "+k.file.Name(), &err)
	k.bytes, err = b.cache.files.fetch(k.file, k.buf, k.off, k.n)
	return err
}

// at finds the block of off. If there is none, gap is the distance to the next block, at most n.
func (b *blocks) at(f expr.File, off, n int64) (k *block, gap int64) {
	for _, k := range b.list {
		switch {
		case k.file != f:
		case off >= k.off && off < k.off+k.n:
			return k, 0
		case k.off > off:
			n = min(n, k.off-off)
		}
	}
	return nil, n
}

// borrow lends the bytes of a block from off on, up to off+n, once the block is read. It lends
// whole rows of width bytes. If it lends nothing, gap is the distance to the next block, at most n.
func (b *blocks) borrow(r *Read, f expr.File, off, n, width int64) (p []byte, k *block, gap int64) {
	k, n = b.pin(f, off, n, width)
	if k == nil {
		return nil, nil, n
	}
	begun := r.waits.begin(forAhead)
	err := wait(r.ctx, b.cache.ctx, k.done)
	r.waits.end(forAhead, begun)
	if err != nil || k.failed || f.Check() != nil {
		k.Release()
		return nil, nil, n
	}
	b.mu.Lock()
	k.left -= n
	b.mu.Unlock()
	at := off - k.off
	return k.bytes[at : at+n], k, 0
}

// pin pins the block of off and returns how many of its bytes can be lent. If it pins none, it
// returns the distance to the next block.
func (b *blocks) pin(f expr.File, off, n, width int64) (*block, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, gap := b.at(f, off, n)
	if k == nil {
		return nil, gap
	}
	rest := min(n, k.off+k.n-off)
	whole := rest / width * width
	if whole == 0 {
		return nil, rest
	}
	k.pins++
	return k, whole
}

// Bytes returns the bytes of the block.
func (k *block) Bytes() []byte { return k.bytes }

// Release returns what borrow lent.
func (k *block) Release() {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	k.of.unpin(k)
}

// unpin ends one use. The last use frees a block that is used up, has failed, or is kept by a
// closed cache.
func (b *blocks) unpin(k *block) {
	if k.pins--; k.pins == 0 && (k.left <= 0 || k.failed || b.closed) {
		b.remove(k)
	}
}

// remove frees a block that is not in use.
func (b *blocks) remove(k *block) {
	b.unlist(k)
	b.cache.counters.unused.Add(max(k.left, 0))
	b.cache.files.buffers.put(k.buf)
	k.buf, k.bytes = nil, nil
}

func (b *blocks) unlist(k *block) {
	if i := slices.Index(b.list, k); i >= 0 {
		b.list = slices.Delete(b.list, i, i+1)
	}
}

// close waits for blocks that are being read, and frees all blocks that are not in use.
func (b *blocks) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.reading.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range slices.Clone(b.list) {
		if k.pins == 0 {
			b.remove(k)
		}
	}
}

// stats adds the memory of the blocks.
func (b *blocks) stats(s *Stats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.list {
		s.ReadAhead += int64(cap(k.buf))
	}
}
