package fs

import (
	"errors"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/dequantfs/dequantfs/fs/units"
)

// run starts goroutines for what may be stored now.
func (r *foreruns) run() {
	for r.idle() > 0 && r.ready() != nil {
		r.running++
		r.done.Add(1)
		go r.work()
	}
}

// idle returns how many more goroutines may store. READs keep processors busy, but those of a
// loader that waits for a forerun do not count.
func (r *foreruns) idle() int {
	if slices.ContainsFunc(r.list, func(x *forerun) bool { return x.proven && !x.over() }) {
		return r.most - r.running
	}
	return r.most - r.running - len(r.reading)
}

// ready returns the forerun that is the least far ahead of its loader, of those that may go on.
func (r *foreruns) ready() (best *forerun) {
	if r.ctx.Err() != nil || len(r.list) == 0 {
		return nil
	}
	room, least := r.leeway(), int64(lastWindow)
	for _, x := range r.list {
		ahead := x.unread() + x.claimed
		room -= ahead
		if ahead < x.window && x.next < x.shelf.size && !x.ended && !x.resting && ahead < least {
			best, least = x, ahead
		}
	}
	if room <= 0 {
		return nil
	}
	return best
}

// leeway returns how far all foreruns together may be ahead: a tenth of the available memory. What
// was stored already is not available, or not for long.
func (r *foreruns) leeway() int64 {
	if now := time.Now(); now.Sub(r.looked) > askEvery {
		r.looked, r.room = now, r.memory()/10
	}
	return r.room
}

// work stores bytes while there is something to store and a processor is idle.
func (r *foreruns) work() {
	defer r.done.Done()
	buf := make([]byte, storeSize+2*pageSize)
	for {
		c, ok := r.take()
		if !ok {
			return
		}
		err := c.file.forerun(r.ctx, buf[:c.size()], c.offset(), c.x.shelf.byKey)
		if err == nil {
			err = r.store(c, buf)
		}
		r.finish(c, err)
	}
}

// chunk is pages that are decoded at once.
type chunk struct {
	span
	x  *forerun
	at int64 // on the shelf
}

// offset returns where the chunk begins in its file.
func (c chunk) offset() int64 { return c.from * pageSize }

// size returns how many bytes the chunk has.
func (c chunk) size() int64 { return min(c.to*pageSize, c.file.Size()) - c.offset() }

// take takes the next chunk.
func (r *foreruns) take() (chunk, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.idle() >= 0 {
		x := r.ready()
		if x == nil {
			break
		}
		if c, ok := r.next(x); ok {
			x.claimed += c.size()
			return c, true
		}
	}
	r.running--
	return chunk{}, false
}

// next returns the next chunk of a forerun. It fails if the kernel has been given all of it, or
// does not know the file yet. In the order of files, the forerun ends where another loader has
// been, since that one is ahead.
func (r *foreruns) next(x *forerun) (c chunk, ok bool) {
	p, in := x.shelf.at(x.next)
	if _, ok := r.caches.Load(p.file); !ok {
		x.resting = true
		return c, false
	}
	n := p.n - in
	if n > storeSize {
		n = storeSize * 2 / 3
	}
	c = chunk{x: x, at: x.next}
	c.file = p.file
	c.from, c.to = pages(p.off+in, n)
	g := x.view.of(p.file)
	if m := p.file.mark(c.from, c.to); m < c.to && g.next(m, m+1, true) > m {
		x.marks = append(x.marks, mark{end: x.next + max(m*pageSize-p.off-in, 0)})
	}
	from := g.next(c.from, c.to, false)
	if from == c.to {
		x.ended = !x.shelf.byKey && p.file.streams.visited(in, n, x.since)
		x.next += n
		return c, false
	}
	for c.from = from; g.next(c.to-1, c.to, true) < c.to; {
		c.to--
	}
	x.next += n
	return c, true
}

// store stores the pages of a chunk that the kernel does not have.
func (r *foreruns) store(c chunk, buf []byte) error {
	cache, ok := r.caches.Load(c.file)
	for at := c.from; ok && at < c.to; {
		from, to := r.missing(c, at)
		if from == to {
			return nil
		}
		part := chunk{span: span{c.file, from, to}}
		begin := part.offset() - c.offset()
		p := buf[begin : begin+part.size()]
		switch errno := cache.(pageCache).WriteCache(part.offset(), p); errno {
		case 0:
			r.given(c, part)
		case syscall.ENOENT:
			r.caches.Delete(c.file) // the kernel has forgotten the file
			return nil
		default:
			return errno
		}
		at = to
	}
	return nil
}

// missing returns the first pages of a chunk, from at on, that the kernel was not given and does
// not ask for.
func (r *foreruns) missing(c chunk, at int64) (from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := c.x.view.of(c.file)
	from = g.next(at, c.to, false)
	for from < c.to && c.file.isMark(from) {
		from = g.next(from+1, c.to, false)
	}
	return from, c.file.mark(from, g.next(from, c.to, true))
}

// given records that the kernel was given a part of a chunk.
func (r *foreruns) given(c, part chunk) {
	n := part.size()
	r.stored.Add(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	v := c.x.view
	v.of(c.file).set(part.from, part.to)
	if v.front != nil {
		v.front.touch(c.file, part.offset(), n)
	}
	if c.at >= c.x.reached {
		c.x.stored = append(c.x.stored, mark{c.at, n})
	}
}

// finish ends a chunk. If it failed, the forerun rests until the next READ. It has passed the
// chunk, whose reader will meet its own error.
func (r *foreruns) finish(c chunk, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.x.claimed -= c.size()
	if err == nil || r.ctx.Err() != nil {
		return
	}
	c.x.resting = true
	if !errors.Is(err, units.ErrNoRoom) {
		r.failures.Add(1)
		r.fs.log.Debug("decoding ahead failed", slog.String("file", c.file.name),
			slog.Any("error", err))
	}
}
