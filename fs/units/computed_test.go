package units

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// computedUnit is a scale grid that is computed once it is released.
func computedUnit(number int64) (u *fakeUnit, release func()) {
	hold := make(chan struct{})
	u = &fakeUnit{file: &noFile{name: "s"}, number: number, size: 1000, kind: expr.Computed}
	u.hook = func() error { <-hold; return nil }
	return u, sync.OnceFunc(func() { close(hold) })
}

// compute gets a computed grid in a read of its own.
func compute(ctx context.Context, f *testFile, u *fakeUnit) error {
	r := f.begin(ctx, 0, 1)
	defer r.End(true)
	e, err := r.cache.computed.get(ctx, &r.waits, u)
	if err == nil && e.Bytes()[u.size-1] != byte(u.number) {
		return errors.New("wrong bytes")
	}
	return err
}

func TestAComputedGridIsComputedOnce(t *testing.T) {
	c, f := newTestCache(t, Limits{Computed: 1 << 20}, testLogger(t))
	u, release := computedUnit(1)
	defer release()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := compute(context.Background(), f, u); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "8 wait", func() bool { return c.Stats().Waiting == 8 })
	release()
	wg.Wait()
	if err := compute(context.Background(), f, u); err != nil {
		t.Error(err)
	}
	if n := u.fills.Load(); n != 1 || c.computed.bytes != 1000 || len(c.computed.calls) != 0 {
		t.Errorf("filled %d times; %d bytes are kept, %d under way", n, c.computed.bytes,
			len(c.computed.calls))
	}
}

// silent is a context without a Done channel, like that of a READ of the kernel.
type silent struct {
	context.Context
	ended atomic.Bool
}

func (s *silent) Done() <-chan struct{} { return nil }

func (s *silent) Err() error {
	if s.ended.Load() {
		return context.Canceled
	}
	return nil
}

func TestAReaderThatWaitsForAComputedGridCanGiveUp(t *testing.T) {
	for name, open := range map[string]func() (context.Context, func()){
		"cancelled": func() (context.Context, func()) { return context.WithCancel(context.Background()) },
		"silent": func() (context.Context, func()) {
			s := &silent{Context: context.Background()}
			return s, func() { s.ended.Store(true) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := newTestCache(t, Limits{Computed: 1 << 20}, testLogger(t))
			u, release := computedUnit(1)
			defer release()
			ctx, giveUp := open()
			gone, stays := make(chan error), make(chan error)
			go func() { gone <- compute(ctx, f, u) }()
			go func() { stays <- compute(context.Background(), f, u) }()
			eventually(t, "both wait", func() bool { return c.Stats().Waiting == 2 })
			giveUp()
			if err := <-gone; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			release()
			if err := <-stays; err != nil || u.fills.Load() != 1 {
				t.Errorf("the other: %v after %d fills", err, u.fills.Load())
			}
		})
	}
}

func TestACloseEndsTheWaitForAComputedGrid(t *testing.T) {
	c, f := newTestCache(t, Limits{Computed: 1 << 20}, testLogger(t))
	u, release := computedUnit(1)
	defer release()
	failed := make(chan error)
	go func() { failed <- compute(context.Background(), f, u) }()
	eventually(t, "it waits", func() bool { return c.Stats().Waiting == 1 })
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	release()
	<-closed
	if err := compute(context.Background(), f, u); err == nil && u.fills.Load() > 1 {
		t.Error("a grid was computed after Close")
	}
}

func TestAComputedGridThatFailsIsNotKept(t *testing.T) {
	c, f := newTestCache(t, Limits{Computed: 1 << 20}, testLogger(t))
	u := &fakeUnit{file: &noFile{name: "s"}, number: 1, size: 1000, kind: expr.Computed}
	u.hook = func() error { return io.ErrUnexpectedEOF }
	if err := compute(context.Background(), f, u); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	u.hook = nil
	if err := compute(context.Background(), f, u); err != nil || c.computed.bytes != 1000 {
		t.Errorf("afterwards: %v, %d bytes are kept", err, c.computed.bytes)
	}
}
