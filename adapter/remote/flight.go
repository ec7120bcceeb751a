package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// flight is one request, for one block or several adjacent ones.
type flight struct {
	fetcher *fetcher
	blocks  []*block
	off, n  int64
	ctx     context.Context
	cancel  context.CancelCauseFunc

	began   time.Time
	got     int64     // bytes of the body
	kept    int64     // of them, those that were published
	mark    int64     // got, when it last was enough to be progress
	marked  time.Time // when that was
	patient bool      // it is not compared with the speed of others
}

// launch sends a request for a block, and for blocks behind it that are queued too.
func (f *fetcher) launch(b *block) {
	now := time.Now()
	fl := &flight{fetcher: f, off: b.off + b.have, n: b.n - b.have, began: now, marked: now,
		patient: b.retry.slow}
	fl.ctx, fl.cancel = context.WithCancelCause(f.ctx)
	fl.add(b)
	for next := f.behind(b); next != nil && fl.n+next.n <= blockSize && f.reserve(next); {
		next.move(nil, false)
		fl.n += next.n
		fl.add(next)
		next = f.behind(next)
	}
	f.flights[fl] = true
	f.counts.requests++
	f.startTicking()
	f.group.Go(fl.run)
}

// behind returns the block behind another one, if it is to be asked for and nothing of it is there.
func (f *fetcher) behind(b *block) *block {
	if b.index == exactIndex {
		return nil
	}
	next := b.table.blocks[b.index+1]
	if next == nil || next.state != queued || next.have > 0 || f.queueOf(next) != &f.requests {
		return nil
	}
	return next
}

func (fl *flight) add(b *block) {
	b.state, b.flight = flying, fl
	fl.blocks = append(fl.blocks, b)
}

// run is the goroutine of a flight.
func (fl *flight) run() {
	err := fl.receive()
	if err != nil {
		err = plain(fl.ctx, err)
	}
	fl.cancel(nil)
	f := fl.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	f.land(fl, err)
	f.schedule()
}

// receive sends the request, and fills the blocks.
func (fl *flight) receive() error {
	b := fl.blocks[0]
	r, err := fl.fetcher.backend.get(fl.ctx, b.table.object, fl.off, fl.n)
	if err != nil {
		return err
	}
	a, err := ask(r, b.table.object, fl.off, fl.n)
	if err != nil {
		return err
	}
	defer a.body.Close()
	for _, b := range fl.blocks {
		if err := fl.fill(b, a); err != nil {
			return err
		}
	}
	if err := a.end(); err != nil {
		return err
	}
	if !a.sure {
		fl.publishAll()
	}
	return nil
}

// fill receives one block. Only this goroutine writes to its buffer, behind the bytes that were
// published.
func (fl *flight) fill(b *block, a *answer) error {
	for have := fl.begin(b); have < b.n; {
		n, err := a.body.Read(b.buf[have:b.n])
		if have += int64(n); have == b.n {
			if err := fl.compareHash(b); err != nil {
				return err
			}
		}
		fl.arrived(b, have, int64(n), a.sure)
		if err == io.EOF && have < b.n {
			return io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// compareHash compares the bytes of a block that is a whole file with the publisher's hash. If they
// differ, all of them are asked for again.
func (fl *flight) compareHash(b *block) error {
	if !b.hashed() {
		return nil
	}
	sum := sha256.Sum256(b.buf[:b.n])
	if hex.EncodeToString(sum[:]) == b.table.object.sha256 {
		return nil
	}
	fl.fetcher.mu.Lock()
	defer fl.fetcher.mu.Unlock()
	b.have, fl.kept = 0, 0
	b.wrong++
	return fmt.Errorf("%w: its SHA-256 is not the one that the publisher tells", errAnswer)
}

// begin is where the bytes of the flight begin in a block.
func (fl *flight) begin(b *block) int64 { return max(fl.off-b.off, 0) }

// arrived counts bytes, and publishes them if they are sure.
func (fl *flight) arrived(b *block, have, n int64, sure bool) {
	f := fl.fetcher
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.got += n
	f.counts.bytes += n
	f.meter.add(now, n)
	if n > 0 {
		f.last = now
	}
	if sure {
		fl.publish(b, have)
	}
}

// publish lets readers have bytes of a block.
func (fl *flight) publish(b *block, have int64) {
	f := fl.fetcher
	fl.kept += have - b.have
	f.publish(b, have)
	if have == b.n {
		f.finish(b)
		f.keep(b)
	}
}

// publishAll publishes all blocks of an answer whose length was not announced.
func (fl *flight) publishAll() {
	fl.fetcher.mu.Lock()
	defer fl.fetcher.mu.Unlock()
	for _, b := range fl.blocks {
		fl.publish(b, b.n)
	}
}

// land ends a flight. The first block that is not full has to wait before it is asked for again.
func (f *fetcher) land(fl *flight, err error) {
	delete(f.flights, fl)
	now := time.Now()
	f.speeds.add(fl.got, now.Sub(fl.began), err == nil || err == errSlow)
	if d := busy(err); d != nil {
		f.counts.throttled++
		f.limit.throttled(now, fl.began, d.after)
	} else if err == nil {
		f.limit.answered()
	}
	rest := fl.rest()
	for i := len(rest) - 1; i >= 0; i-- {
		b := rest[i]
		b.flight = nil
		if i > 0 || err == errUnwanted {
			f.again(b, 0)
			continue
		}
		f.failed(b, fl, err)
	}
}

// rest returns the blocks of a flight that are not full.
func (fl *flight) rest() []*block {
	for i, b := range fl.blocks {
		if b.flight == fl {
			return fl.blocks[i:]
		}
	}
	return nil
}

// failed decides what becomes of a block after a request has failed.
func (f *fetcher) failed(b *block, fl *flight, err error) {
	wait, last := b.retry.next(err, fl.kept, f.times, f.tries)
	if b.wrong >= f.tries {
		last = err
	}
	if err = last; err != nil {
		b.state = idle
		f.fail(b, err)
		return
	}
	if b.wanted() {
		f.counts.retries++
	}
	f.again(b, wait)
}

// again asks for a block again, after a pause. One that is not wanted any more is dropped.
func (f *fetcher) again(b *block, wait time.Duration) {
	b.state = delayed
	switch {
	case f.closed, b.dropped, !b.wanted():
		f.drop(b)
	case wait == 0:
		f.enqueue(b, true)
	default:
		b.timer = time.AfterFunc(wait, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if b.state == delayed && !b.dropped {
				f.enqueue(b, true)
				f.schedule()
			}
		})
	}
}

// cancelUnwanted ends a flight if none of its blocks is wanted.
func (fl *flight) cancelUnwanted() {
	for _, b := range fl.rest() {
		if b.wanted() && !b.dropped {
			return
		}
	}
	fl.cancel(errUnwanted)
}

// watch ends a flight that stalls, or is much slower than others.
func (fl *flight) watch(now time.Time, t times, usual float64) {
	if fl.got-fl.mark >= progress {
		fl.mark, fl.marked = fl.got, now
	}
	age := now.Sub(fl.began)
	switch {
	case now.Sub(fl.marked) >= t.patience:
		fl.cancel(errStalled)
	case age >= t.slow && !fl.patient && float64(fl.got)/age.Seconds() < usual/10:
		fl.cancel(errSlow)
	}
}
