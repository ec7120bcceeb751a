package remote

// blockCache keeps blocks on a disk. It is safe for concurrent use.
type blockCache interface {
	// Read fills p with the n bytes of the block at off of an object's pinned version. It reports
	// whether the cache has them, and they are right.
	Read(o *object, off, n int64, p []byte) bool

	// Write keeps a block. It returns when p may change.
	Write(o *object, off int64, p []byte)
}

// Bounds of the use of the disk.
const (
	mostLooks  = 8 // reads at once
	mostWrites = 2
)

// look reads a block from the disk cache. Blocks that are not there go to the front of the queue
// for requests.
func (f *fetcher) look(b *block) {
	b.state = looking
	f.looking++
	buf := b.buf[:b.n]
	f.group.Go(func() {
		ok := f.cache.Read(b.table.object, b.off, b.n, buf)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.looking--
		f.looked(b, ok)
		f.schedule()
	})
}

func (f *fetcher) looked(b *block, ok bool) {
	b.looked = true
	if b.onDisk = ok; ok {
		f.counts.hits++
		f.counts.cacheBytes += b.n
		f.publish(b, b.n)
		f.finish(b)
		return
	}
	f.counts.misses++
	f.again(b, 0)
}

// writes is the blocks that are to be kept in the disk cache. They stay in the budget of memory.
// One that is evicted before its turn is not kept.
type writes struct {
	queue   []*block
	running int
}

// keep has a block written to the disk cache, if there is one.
func (f *fetcher) keep(b *block) {
	if f.cache == nil || b.dropped {
		return
	}
	b.unkept = true
	f.writes.queue = append(f.writes.queue, b)
	if f.writes.running < mostWrites && !f.closed {
		f.writes.running++
		f.group.Go(f.write)
	}
}

// write writes blocks until there are none. A pin keeps the memory of the one that is written.
func (f *fetcher) write() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.closed && len(f.writes.queue) > 0 {
		b := f.writes.queue[0]
		f.writes.queue[0] = nil
		f.writes.queue = f.writes.queue[1:]
		if !b.dropped {
			f.writeOne(b)
		}
	}
	f.writes.running--
}

func (f *fetcher) writeOne(b *block) {
	b.pins++
	b.move(nil, false)
	buf := b.buf[:b.n]
	f.mu.Unlock()
	f.cache.Write(b.table.object, b.off, buf)
	f.mu.Lock()
	b.unkept = false
	b.pins--
	f.release(b)
	f.settle(b)
	f.schedule()
}
