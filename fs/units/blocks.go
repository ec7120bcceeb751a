package units

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

const (
	minBlock = 64 << 10 // smaller ranges are left to their readers
	blockAge = 4096     // reads, after which a block that nobody has used makes room
)

// blocks are source bytes that were read ahead of streams of row-contiguous recipes, and are lent to the recipes
// when the streams get there. A block goes when it has been lent to its end.
//
// They help and never harm: a block that cannot be read is forgotten, and its readers read for themselves and get
// their own error.
//
// The other way to read ahead is to ask the system for it (POSIX_FADV_WILLNEED). Linux then fills its page cache with
// single pages instead of large folios: 1.5 GB/s and 0.33 s of processor time for a GiB, against 2.2 GB/s and 0.1 s for
// plain reads of the same size; and a source that answers slowly is slow once more when the stream gets there.
type blocks struct {
	cache       *Cache
	max         int   // how many there may be
	size, least int64 // of each: at most, at least

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
	bytes  []byte        // the n bytes in it; set once it is loaded
	done   chan struct{} // closed when it is loaded or has failed
	begun  bool          // to be loaded
	failed bool
	pins   int   // of who loads it, too
	left   int64 // bytes that were not lent yet

	where File // in which the stream reads, what part of it, and up to where the block serves it
	run   Run
	end   int64
}

func newBlocks(c *Cache, t Tuning) *blocks {
	return &blocks{
		cache: c, size: cmp.Or(t.Block, fetchSize), least: cmp.Or(t.MinBlock, minBlock),
		paces: map[expr.File]*pace{},
	}
}

// setMax changes how many there may be.
func (b *blocks) setMax(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max = n
}

// fetch begins to read a range ahead of a session's stream, which needs it up to end in its file. It says whether
// there was room. What is in the page cache is left there: read in small pieces it stays in the core's own cache until it
// is decoded, and 16 readers get an eighth more.
func (b *blocks) fetch(s *Read, f expr.File, off, n, end int64) bool {
	if d, ok := f.(expr.DirectFile); ok && d.Cached(off, n) {
		return true
	}
	for ; n >= b.least; off, n = off+b.size, n-b.size {
		if !b.start(s, f, off, min(n, b.size), end) {
			return false
		}
	}
	return true
}

func (b *blocks) start(s *Read, f expr.File, off, n, end int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, gap := b.at(f, off, n); k != nil || gap < n {
		return true // somebody else's stream is here, too
	}
	if b.closed || b.cache.files.isStalled(f) || !b.room() {
		return false
	}
	b.list = append(b.list, &block{
		of: b, file: f, off: off, n: n, buf: b.cache.files.buffers.get(BufferSize), done: make(chan struct{}), pins: 1, left: n,
		where: s.file, run: s.run, end: end,
	})
	b.reading.Add(1)
	b.next(f)
	return true
}

// next begins to load the blocks of a file whose turn it is, in the order of the file: disks and those
// who read ahead behind them like that.
func (b *blocks) next(f expr.File) {
	pace := b.paceOf(f)
	for _, k := range b.list {
		if pace.loading >= pace.depth() {
			return
		}
		if k.file == f && !k.begun {
			k.begun = true
			pace.loading++
			go b.load(k)
		}
	}
}

// Loads of one file at once: enough to keep it busy, one for each millisecond that a load takes.
const (
	minDepth = 4
	maxDepth = 16
)

// pace is how fast the blocks of a file are read; guarded by blocks.mu.
type pace struct {
	loading int           // blocks that are being read
	took    time.Duration // by reads of late
}

// paceOf gives the pace of a file.
func (b *blocks) paceOf(f expr.File) *pace {
	p := b.paces[f]
	if p == nil {
		p = new(pace)
		b.paces[f] = p
	}
	return p
}

// depth is how many blocks of a file are loaded at once.
func (p *pace) depth() int {
	return int(min(max(p.took/time.Millisecond, minDepth), maxDepth))
}

// loaded notes how long a load took.
func (p *pace) loaded(took time.Duration) { p.took += (took - p.took) / 4 }

// room makes room for a block, if need be at the cost of one that was not used when it should have been.
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

// unused says whether the stream that the block was read for has left it behind, or goes on no more.
func (k *block) unused() bool {
	return k.where.Beyond(k.run, k.end+behind) || k.of.cache.clock.Load()-k.run.Clock > blockAge
}

// load reads a block.
func (b *blocks) load(k *block) {
	defer b.reading.Done()
	begin := time.Now()
	err := b.read(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	pace := b.paceOf(k.file)
	pace.loading--
	took := time.Since(begin)
	pace.loaded(took)
	if took > b.cache.guard.slowAfter {
		b.cache.guard.slowly("reading ahead of the source took long", slog.String("file", k.file.Name()), slog.Int64("offset", k.off), slog.Duration("after", took))
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

// at finds the block that off lies in. Without one it tells how far the next one is, or n.
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

// borrow lends what a block has of [off, off+n) from off on, in whole rows of width bytes, once it is loaded. Without a
// block it tells how far the next one is, or n.
func (b *blocks) borrow(ctx context.Context, w *waits, f expr.File, off, n, width int64) (p []byte, k *block, gap int64) {
	b.mu.Lock()
	k, gap = b.at(f, off, n)
	if k == nil {
		b.mu.Unlock()
		return nil, nil, gap
	}
	rest := min(n, k.off+k.n-off)
	whole := rest / width * width
	if whole == 0 {
		b.mu.Unlock()
		return nil, nil, rest
	}
	k.pins++
	b.mu.Unlock()
	begun := w.begin(forAhead)
	err := wait(ctx, b.cache.ctx, k.done)
	w.end(forAhead, begun)
	if err != nil || k.failed || check(f) != nil {
		k.Release()
		return nil, nil, whole
	}
	b.mu.Lock()
	k.left -= whole
	b.mu.Unlock()
	at := off - k.off
	return k.bytes[at : at+whole], k, 0
}

// Bytes of the block.
func (k *block) Bytes() []byte { return k.bytes }

// Release ends what borrow began.
func (k *block) Release() {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	k.of.unpin(k)
}

// unpin ends one use; the last one of a block that is used up, or is listed no more, frees it.
func (b *blocks) unpin(k *block) {
	if k.pins--; k.pins == 0 && (k.left <= 0 || k.failed || b.closed) {
		b.remove(k)
	}
}

// remove frees a block that nobody uses.
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

// close waits for what is being read and frees all that nobody uses.
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

// stats adds what is held.
func (b *blocks) stats(s *Stats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.list {
		s.ReadAhead += int64(cap(k.buf))
	}
}
