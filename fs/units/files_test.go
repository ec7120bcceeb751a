package units

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestARangeIsReadAgainOnlyIfAllOfItWasLoaded(t *testing.T) {
	const size, step = 10 << 20, 300_000
	w := new(watch)
	for off := int64(0); off < size/2; off += step {
		if w.again(size, off, min(step, size/2-off)) {
			t.Fatalf("[%d, …) was not loaded before", off)
		}
	}
	for _, c := range []struct {
		off, n int64
		want   bool
	}{
		{0, size / 2, true},
		{1, 1 << 20, true},
		{size/2 - 1<<20, 2 << 20, false}, // in part
		{size - 1<<20, 1 << 20, false},
		{size - 1<<20, 5 << 20, true}, // all of it by now; there is nothing beyond the end
		{5, 1000, false},              // too small to know
	} {
		if got := w.again(size, c.off, c.n); got != c.want {
			t.Errorf("[%d, %d): %v", c.off, c.off+c.n, got)
		}
	}
}

// brittle is a source that panics when it is dropped from the page cache.
type brittle struct{ noFile }

func (*brittle) Advise(_, _ int64, _ bool) { panic("no advice") }

func TestAPanicOfAdviceCostsNobodyAnything(t *testing.T) {
	log := &logTo{}
	c, f := newTestCache(t, Limits{Units: 1 << 20}, slog.New(slog.NewTextHandler(log, nil)))
	c.files.policy = SourceDrop
	u := &fakeUnit{file: &brittle{noFile{name: "source"}}, number: 1, size: 1000}
	if err := use(context.Background(), f, 0, 1000, u); err != nil {
		t.Error(err)
	}
	if got := log.String(); !strings.Contains(got, "no advice") || c.Stats().Panics != 1 {
		t.Errorf("%d panics, log: %s", c.Stats().Panics, got)
	}
}

// unanswering is a source that does not answer until it is released, unless the reader gives up.
type unanswering struct {
	noFile
	asked, release chan struct{}
}

func (s *unanswering) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	s.asked <- struct{}{}
	select {
	case <-s.release:
		return len(p), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// A file that does not answer stays stalled when a reader gives up. Otherwise fills of it would
// begin, beside those that are out of the account.
func TestAReaderThatGivesUpDoesNotHideAStall(t *testing.T) {
	s := files{ctx: t.Context()}
	f := &unanswering{noFile{name: "silent"}, make(chan struct{}), make(chan struct{})}
	var reads sync.WaitGroup
	defer reads.Wait()
	reads.Go(func() {
		if _, err := s.read(context.Background(), f, make([]byte, 10), 0); err != nil {
			t.Error(err)
		}
	})
	<-f.asked
	s.of(f).since.Store(time.Now().Add(-2 * stallAfter).UnixNano())
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.read(ctx, f, make([]byte, 10), 0)
		left <- err
	}()
	<-f.asked
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !s.isStalled(f) {
		t.Error("the file does not count as stalled any more")
	}
	if n := s.of(f).inflight.Load(); n != 1 {
		t.Errorf("%d reads are under way, want 1", n)
	}
	close(f.release)
	reads.Wait()
	if s.isStalled(f) {
		t.Error("the file counts as stalled although it has answered")
	}
}
