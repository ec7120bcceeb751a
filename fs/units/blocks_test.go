package units

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// timed is a source file that takes some time to answer, and counts how often it is read at once.
type timed struct {
	noFile
	takes    time.Duration
	at, most atomic.Int64
}

func (f *timed) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	now := f.at.Add(1)
	for old := f.most.Load(); now > old && !f.most.CompareAndSwap(old, now); old = f.most.Load() {
	}
	time.Sleep(f.takes)
	f.at.Add(-1)
	return len(p), nil
}

// aheadOf reads n bytes ahead of a stream that has not begun.
func aheadOf(t *testing.T, l Limits, source *timed, n int64) (*Cache, *Read) {
	t.Helper()
	c, f := newTestCache(t, l, testLogger(t))
	if source.takes == 0 {
		c.blocks.paceOf(source).took = -time.Hour // however slow this machine is
	}
	r := f.begin(context.Background(), 0, 4096)
	if !r.ReadAhead(source, 0, n, n) {
		t.Fatal("there is no room")
	}
	return c, r
}

// A slow source gets more reads at once than a fast one.
func TestASlowSourceIsReadInManyPiecesAtOnce(t *testing.T) {
	for _, test := range []struct {
		takes       time.Duration
		least, most int64
	}{{20 * time.Millisecond, 6, maxDepth}, {0, 1, minDepth}} {
		source := &timed{noFile: noFile{name: "source"}, takes: test.takes}
		c, r := aheadOf(t, Limits{Blocks: 100}, source, 100*fetchSize)
		c.blocks.reading.Wait()
		r.End(true)
		if got := source.most.Load(); got < test.least || got > test.most {
			t.Errorf("up to %d reads were under way at once where each takes %v", got, test.takes)
		}
	}
}

func TestCloseFreesWhatWasReadAhead(t *testing.T) {
	c, r := aheadOf(t, Limits{Blocks: 4}, &timed{noFile: noFile{name: "source"}}, 4*fetchSize)
	r.End(true)
	if n := c.Stats().ReadAhead; n != 4*BufferSize {
		t.Fatalf("%d bytes were read ahead", n)
	}
	c.Close()
	if n := c.Stats().ReadAhead; n != 0 || len(c.files.buffers.list) != 0 {
		t.Errorf("%d bytes, and %d buffers", n, len(c.files.buffers.list))
	}
}
