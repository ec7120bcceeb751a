package remote

import (
	"container/list"
	"context"
	"log/slog"
	"sync"
	"time"
)

// fetcher asks a backend for blocks, and keeps them.
//
// Readers and calls of ahead put blocks into queues. schedule begins requests as far as the limit
// of requests and the budget of memory allow. Each request is a flight with a goroutine of its own.
// When a flight ends, its blocks are full, or are queued again, or fail. One lock guards all of it,
// and is never held while bytes are copied or received.
type fetcher struct {
	backend backend
	cache   blockCache // nil: none
	logger  *slog.Logger
	times   times
	tries   int
	ctx     context.Context
	end     context.CancelFunc
	group   sync.WaitGroup // of all goroutines

	mu       sync.Mutex
	closed   bool
	memory   *memory
	limit    *limit
	looks    queue // blocks that may be in the disk cache
	requests queue // blocks that are asked for over the network
	looking  int   // reads of the disk cache
	flights  map[*flight]bool
	ticking  bool
	resume   *time.Timer     // schedules again after a pause
	resumes  time.Time       // when it does
	tables   map[*table]bool // of open files
	resting  *time.Timer     // frees memory when there is nothing to do
	streams  map[*table]bool // that were read ahead lately
	writes   writes

	speeds speeds
	meter  meter
	last   time.Time // when the last byte arrived
	counts counts
}

// counts are the numbers of source.Traffic that are counted.
type counts struct{ bytes, requests, retries, throttled, hits, misses, cacheBytes int64 }

func newFetcher(b backend, o Options) *fetcher {
	f := &fetcher{
		backend: b, logger: o.Logger, times: timesOf(o), tries: triesOf(o),
		memory: newMemory(memoryOf(o)), limit: newLimit(o.AtOnce, timesOf(o)),
		looks: newQueue(), requests: newQueue(),
		flights: map[*flight]bool{}, tables: map[*table]bool{}, streams: map[*table]bool{},
	}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// queue is the blocks that wait for a turn. Those that readers wait for come first.
type queue struct{ demand, ahead *list.List }

func newQueue() queue { return queue{list.New(), list.New()} }

// front returns the block whose turn is next, or nil.
func (q *queue) front() *block {
	if b := at(q.demand.Front()); b != nil {
		return b
	}
	return at(q.ahead.Front())
}

// queueOf returns the queue that a block waits in next.
func (f *fetcher) queueOf(b *block) *queue {
	if f.cache != nil && !b.looked {
		return &f.looks
	}
	return &f.requests
}

// enqueue makes a block wait for its turn. One that had its turn before goes to the front.
func (f *fetcher) enqueue(b *block, again bool) {
	b.state = queued
	q := f.queueOf(b)
	if len(b.waiting) == 0 && b.early {
		b.move(q.ahead, again)
		return
	}
	b.move(q.demand, again)
}

// next takes the next block off a queue, with memory. It is nil if there is none, or no memory.
func (f *fetcher) next(q *queue) *block {
	b := q.front()
	if b == nil || !f.reserve(b) {
		return nil
	}
	b.move(nil, false)
	return b
}

// isAhead reports whether no reader waits for a block.
func (f *fetcher) isAhead(b *block) bool {
	return b.in == f.looks.ahead || b.in == f.requests.ahead
}

// reserve gives a block memory.
func (f *fetcher) reserve(b *block) bool {
	if b.buf == nil {
		b.buf = f.take(b.n, f.isAhead(b))
	}
	return b.buf != nil
}

// schedule begins what may begin now.
func (f *fetcher) schedule() {
	if f.closed {
		return
	}
	for f.looking < mostLooks {
		b := f.next(&f.looks)
		if b == nil {
			break
		}
		f.look(b)
	}
	for f.mayAsk() {
		b := f.next(&f.requests)
		if b == nil {
			break
		}
		f.launch(b)
	}
}

// mayAsk reports whether one more request may be sent now, if there is one to send.
func (f *fetcher) mayAsk() bool {
	b := f.requests.front()
	if b == nil {
		return false
	}
	if time.Until(f.limit.until) > 0 {
		f.resumeAt(f.limit.until)
		return false
	}
	if len(f.flights) >= f.limit.room(b.index == exactIndex && b.n <= smallSize, f.isAhead(b)) {
		f.limit.full = true
		return false
	}
	return true
}

// resumeAt schedules again later.
func (f *fetcher) resumeAt(at time.Time) {
	switch {
	case f.resumes.Equal(at):
		return
	case f.resume != nil:
		f.resume.Stop()
	}
	f.resumes = at
	f.resume = time.AfterFunc(time.Until(at), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.schedule()
	})
}

// settle puts a block where it belongs once a reader has left it, or its state has changed.
func (f *fetcher) settle(b *block) {
	switch {
	case b.dropped || !b.unused():
	case b.index == exactIndex && !b.unkept: // the disk cache has it, or there is none
		f.drop(b)
	case b.state == full:
		f.memory.idle(b, time.Now())
	case b.wanted():
	case b.state == queued, b.state == delayed:
		f.drop(b)
	case b.state == flying:
		b.flight.cancelUnwanted()
	}
}

// drop takes a block out of its table. Its memory is free as soon as no copy needs it, and its
// request has ended.
func (f *fetcher) drop(b *block) {
	b.dropped = true
	b.move(nil, false)
	b.table.forget(b)
	if b.timer != nil {
		b.timer.Stop()
	}
	if b.flight != nil {
		b.flight.cancelUnwanted()
	}
	f.release(b)
}

// release frees the memory of a block that was dropped.
func (f *fetcher) release(b *block) {
	if !b.dropped || b.pins > 0 || b.buf == nil || b.flight != nil || b.state == looking {
		return
	}
	f.memory.give(b.buf)
	b.buf = nil
}

// fail ends the reads that wait for a block.
func (f *fetcher) fail(b *block, err error) {
	for _, p := range b.waiting {
		p.reader.err = err
		p.reader.notify()
	}
	b.waiting, b.early, b.keep = nil, false, false
	f.drop(b)
}

// publish tells readers that bytes of a block have arrived.
func (f *fetcher) publish(b *block, have int64) {
	b.have = have
	for _, p := range b.waiting {
		if p.ready() {
			p.reader.notify()
		}
	}
}

// finish marks a block as full.
func (f *fetcher) finish(b *block) {
	b.state, b.retry, b.flight = full, retry{}, nil
	if b.dropped {
		f.release(b)
		return
	}
	f.settle(b)
}

// close ends all requests and reads. It waits for goroutines, but not for a disk that hangs.
func (f *fetcher) close() {
	f.mu.Lock()
	f.closed = true
	f.end()
	for _, t := range []*time.Timer{f.resume, f.resting} {
		if t != nil {
			t.Stop()
		}
	}
	for t := range f.tables {
		t.failAll()
	}
	f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		f.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closePatience):
	}
}

// closePatience is how long close waits. Requests end at once, since they have the context.
const closePatience = 2 * time.Second
