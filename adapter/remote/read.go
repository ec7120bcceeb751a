package remote

import (
	"context"
	"time"
)

// reader is one read that is under way.
type reader struct {
	wake  chan struct{} // has room for one
	parts []*part       // that are not done
	began time.Time
	err   error
}

// part is what a reader wants of one block.
type part struct {
	block  *block
	reader *reader
	dst    []byte
	from   int64 // in the block
	done   int64 // bytes of dst that are filled
}

// step is how many bytes are worth waking a reader for.
const step = 1 << 20

// ready reports whether bytes have arrived that the reader should copy now.
func (p *part) ready() bool {
	got := p.arrived() - p.done
	return got > 0 && (p.done+got == int64(len(p.dst)) || got >= step)
}

// arrived is how many bytes of dst could be filled.
func (p *part) arrived() int64 {
	return max(min(p.block.have-p.from, int64(len(p.dst))), 0)
}

func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// read fills p, which is inside the file. It copies bytes in the order in which they arrive. So a
// block is free again as soon as it has arrived, even if an earlier one has not.
func (t *table) read(ctx context.Context, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r := &reader{wake: make(chan struct{}, 1), began: time.Now()}
	f := t.fetcher
	if err := t.join(r, p, off); err != nil {
		return 0, err
	}
	defer t.leave(r)
	wait := waiting{ctx: ctx, tick: f.times.tick}
	defer wait.end()
	for {
		left, err := f.copy(r)
		if err != nil {
			return 0, err
		}
		if left == 0 {
			return len(p), nil
		}
		if err := wait.next(r.wake); err != nil {
			return 0, err
		}
	}
}

// join makes a reader wait for its blocks, and begins to fetch those that are not there.
func (t *table) join(r *reader, p []byte, off int64) error {
	f := t.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.closed || f.closed {
		return errClosed
	}
	t.active++
	end := off + int64(len(p))
	for _, s := range t.spans(off, int64(len(p))) {
		from := max(off-s.off, 0)
		dst := p[s.off+from-off : min(s.off+s.n, end)-off]
		part := &part{block: t.block(s), reader: r, dst: dst, from: from}
		r.parts = append(r.parts, part)
		f.want(part)
	}
	f.schedule()
	return nil
}

// want makes a part wait for its block.
func (f *fetcher) want(p *part) {
	b := p.block
	b.waiting = append(b.waiting, p)
	switch b.state {
	case idle:
		f.enqueue(b, false)
	case queued:
		if q := f.queueOf(b); b.in == q.ahead {
			b.move(q.demand, true) // it has memory, so it must not wait for those that need some
		}
	case full:
		b.move(nil, false) // not evicted while it is wanted
	}
}

// leave ends a read. Blocks that it still waits for are fetched on only if another reader wants
// them, or if they are mostly there.
func (t *table) leave(r *reader) {
	f := t.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range r.parts {
		f.unwant(p, false)
	}
	t.active--
	t.left.Broadcast()
	f.schedule()
}

// unwant takes a part off its block.
func (f *fetcher) unwant(p *part, done bool) {
	b := p.block
	for i, w := range b.waiting {
		if w == p {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			break
		}
	}
	b.keep = b.keep || done
	if len(b.waiting) == 0 && !done {
		b.keep = b.keep || b.have*2 >= b.n
	}
	f.settle(b)
}

// copy fills the parts of a reader as far as bytes have arrived. It returns how many parts are not
// full.
func (f *fetcher) copy(r *reader) (left int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := r.parts[:0]
	for i, p := range r.parts {
		if r.err != nil {
			rest = append(rest, r.parts[i:]...)
			break
		}
		f.copyPart(p)
		if p.done == int64(len(p.dst)) {
			f.unwant(p, true)
			continue
		}
		rest = append(rest, p)
	}
	clear(r.parts[len(rest):])
	r.parts = rest
	f.schedule()
	if r.err == nil && len(rest) > 0 && f.silent(r) {
		r.err = errSilent
	}
	return len(rest), r.err
}

// copyPart copies without the lock. The pin keeps the buffer, even if the block fails meanwhile.
func (f *fetcher) copyPart(p *part) {
	b := p.block
	for n := p.arrived(); n > p.done && p.reader.err == nil; n = p.arrived() {
		from := b.buf[p.from+p.done : p.from+n]
		b.pins++
		f.mu.Unlock()
		copy(p.dst[p.done:n], from)
		f.mu.Lock()
		b.pins--
		b.read += n - p.done
		b.seen.mark(p.from+p.done, p.from+n, b.n)
		p.done = n
		f.release(b)
	}
}

// silent reports whether the store has sent nothing at all for very long.
func (f *fetcher) silent(r *reader) bool {
	last := r.began
	if f.last.After(last) {
		last = f.last
	}
	return time.Since(last) > f.times.silent
}

// waiting waits for bytes and for the end of a context. Some contexts have no Done channel, so it
// also polls.
type waiting struct {
	ctx  context.Context
	tick time.Duration
	poll *time.Ticker
}

func (w *waiting) next(wake <-chan struct{}) error {
	if w.poll == nil {
		w.poll = time.NewTicker(w.tick)
	}
	select {
	case <-wake:
	case <-w.poll.C:
	case <-w.ctx.Done():
	}
	return w.ctx.Err()
}

func (w *waiting) end() {
	if w.poll != nil {
		w.poll.Stop()
	}
}
