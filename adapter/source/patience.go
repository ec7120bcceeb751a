package source

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	errandBytes = 256 << 10              // most bytes of one errand
	maxErrands  = 32                     // of one file at the same time
	askAgain    = 100 * time.Millisecond // how often a context without a channel is asked
)

// errand is a read in its own goroutine, so its reader can leave it. It reads into its own memory,
// because the buffer belongs to the reader. A stalled read also keeps a thread of the system, so
// the number of errands is limited.
type errand struct {
	f    *localFile
	off  int64
	buf  []byte
	n    int
	err  error
	left atomic.Bool   // by the reader or by the goroutine; the second one recycles it
	done chan struct{} // receives when it was read
	wake *time.Timer
	run  func()
}

// errands keeps errands for later use.
var errands sync.Pool

// newErrand returns an errand whose timer runs.
func newErrand() *errand {
	if e, ok := errands.Get().(*errand); ok {
		e.wake.Reset(askAgain)
		return e
	}
	e := &errand{done: make(chan struct{}, 1), wake: time.NewTimer(askAgain)}
	e.run = e.read
	return e
}

// read does the errand. It recycles the errand if the reader has left.
func (e *errand) read() {
	f := e.f
	e.n, e.err = f.readNow(e.buf, e.off)
	<-f.errands
	if e.left.Swap(true) {
		e.put()
		return
	}
	e.done <- struct{}{}
}

// put recycles the errand.
func (e *errand) put() {
	e.f, e.err = nil, nil
	e.wake.Stop()
	errands.Put(e)
}

// readPatiently fills p, which is inside the file, unless the context ends first.
func (f *localFile) readPatiently(ctx context.Context, p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		piece := p[n:min(len(p), n+errandBytes)]
		var got int
		got, err = f.send(ctx, piece, off+int64(n))
		n += got
	}
	return n, err
}

// send fills p by one errand.
func (f *localFile) send(ctx context.Context, p []byte, off int64) (int, error) {
	e := newErrand()
	if err := e.await(ctx, f.errands, nil); err != nil {
		e.put()
		return 0, err
	}
	if cap(e.buf) < len(p) {
		e.buf = make([]byte, min(max(len(p), 64<<10), errandBytes))
	}
	e.f, e.off, e.buf = f, off, e.buf[:len(p)]
	e.left.Store(false)
	go e.run()
	if err := e.await(ctx, nil, e.done); err != nil {
		if !e.left.Swap(true) {
			return 0, err
		}
		<-e.done
	}
	n, err := copy(p, e.buf[:e.n]), e.err
	e.put()
	return n, err
}

// await waits for a free place or until the errand is done, unless the context ends first.
func (e *errand) await(ctx context.Context, free chan<- struct{}, done <-chan struct{}) error {
	for {
		select {
		case free <- struct{}{}:
			return nil
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake.C:
			if err := ctx.Err(); err != nil {
				return err
			}
			e.wake.Reset(askAgain)
		}
	}
}
