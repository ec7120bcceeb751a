package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/size"
)

func TestReadsEqualSlicesOfTheFile(t *testing.T) {
	goroutines(t)
	for _, seed := range size.Seeds(t) {
		for _, memory := range []int64{1 << 20, 12 << 20, 1 << 30} {
			t.Run(fmt.Sprint("seed ", seed, " memory ", memory), func(t *testing.T) {
				readRandomly(t, seed, memory)
			})
		}
	}
}

func readRandomly(t *testing.T, seed uint64, memory int64) {
	r := rand.New(rand.NewPCG(seed, 0))
	n := 1 + r.Int64N(int64(size.Count(20, 60))<<20)
	s := serve(t, int(n), Options{Memory: memory}, nil)
	tab := newTable(s.fetcher, s.object)
	s.check(t, tab, 0, min(n, 100))
	tab.cut(checkpoint(r, n))
	var group sync.WaitGroup
	for reader := range uint64(4) {
		group.Go(func() {
			r := rand.New(rand.NewPCG(seed, reader))
			for range size.Count(6, 300) {
				off := r.Int64N(n)
				most := []int64{100, 1 << 20, n}[r.IntN(3)]
				s.check(t, tab, off, 1+r.Int64N(min(n-off, most)))
				tab.ahead(r.Int64N(n), r.Int64N(16<<20))
			}
		})
	}
	group.Wait()
	within(t, s.fetcher, memory)
	s.consistent(t)
}

// within checks the memory that is used at rest.
func within(t *testing.T, f *fetcher, memory int64) {
	t.Helper()
	if m := f.traffic().Memory; m > max(memory, blockSize+roomy(1<<19)) {
		t.Errorf("%d bytes in memory; the budget is %d", m, memory)
	}
}

func TestABlockIsAskedForOnce(t *testing.T) {
	begin := make(chan bool)
	s := serve(t, 8<<20, Options{}, func(int, http.ResponseWriter, *http.Request) bool {
		<-begin
		return false
	})
	tab := newTable(s.fetcher, s.object)
	tab.cut([]int64{100})
	var group sync.WaitGroup
	for i := range int64(100) {
		group.Go(func() { s.check(t, tab, 1000+i*1000, 2000) })
	}
	for waiting := 0; waiting < 100; {
		s.fetcher.mu.Lock()
		waiting = tab.active
		s.fetcher.mu.Unlock()
	}
	close(begin)
	group.Wait()
	if n := len(s.ranges()); n != 1 {
		t.Errorf("%d requests: %v", n, s.ranges())
	}
}

func TestBytesAreReadBeforeTheBlockIsThere(t *testing.T) {
	goroutines(t)
	more := make(chan bool)
	s := serve(t, 4<<20, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		rest := w.(http.Flusher)
		w.Header().Set("Content-Length", fmt.Sprint(4<<20))
		w.Header().Set("Content-Range", "bytes 0-4194303/4194304")
		w.WriteHeader(http.StatusPartialContent)
		return serveParts(w, rest, more)
	})
	copy(s.data, make([]byte, len(s.data)))
	s.object.name = "plain.bin"
	tab := newTable(s.fetcher, s.object)
	s.check(t, tab, 10, 1<<20)
	close(more)
	s.check(t, tab, 3<<20, 1<<20)
}

// serveParts sends 2 MiB of zeros, and the rest later.
func serveParts(w http.ResponseWriter, f http.Flusher, more chan bool) bool {
	_, _ = w.Write(make([]byte, 2<<20))
	f.Flush()
	<-more
	_, _ = w.Write(make([]byte, 2<<20))
	return true
}

func TestSmallAdjacentBlocksAreOneRequest(t *testing.T) {
	s := serve(t, 8<<20, Options{AtOnce: 1}, nil)
	tab := newTable(s.fetcher, s.object)
	var begins []int64
	for at := int64(1000); at < 8<<20; at += 300 << 10 {
		begins = append(begins, at)
	}
	tab.cut(begins)
	s.check(t, tab, 1000, 6<<20)
	want := fmt.Sprintf("bytes=1000-%d", 999+21*(300<<10))
	if got := s.ranges(); len(got) != 1 || got[0] != want {
		t.Errorf("requests: %v", got)
	}
}

func TestAnEndedContextLeavesAtOnce(t *testing.T) {
	goroutines(t)
	var left atomic.Int32
	s := serve(t, 4<<20, Options{}, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		left.Add(1)
		return true
	})
	tab := newTable(s.fetcher, s.object)
	tab.cut(nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		eventually(t, "the request is there", func() bool { return len(s.ranges()) == 1 })
		cancel()
	}()
	_, err := tab.read(ctx, make([]byte, 10), 0)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	eventually(t, "the request ends", func() bool { return left.Load() == 1 })
	if m := s.traffic(); m.Memory > blockSize || m.InFlight != 0 {
		t.Errorf("%+v", m)
	}
}

// quiet is a context without a Done channel.
type quiet struct {
	context.Context
	ended atomic.Bool
}

func (q *quiet) Done() <-chan struct{} { return nil }
func (q *quiet) Err() error {
	if q.ended.Load() {
		return context.Canceled
	}
	return nil
}

func TestAContextWithoutDoneEndsAReadToo(t *testing.T) {
	s := serve(t, 4<<20, Options{}, silent)
	tab := newTable(s.fetcher, s.object)
	q := &quiet{Context: context.Background()}
	time.AfterFunc(10*time.Millisecond, func() { q.ended.Store(true) })
	if _, err := tab.read(q, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAReaderThatLeavesDoesNotEndTheOthers(t *testing.T) {
	begin := make(chan bool)
	s := serve(t, 4<<20, Options{}, func(int, http.ResponseWriter, *http.Request) bool {
		<-begin
		return false
	})
	tab := newTable(s.fetcher, s.object)
	tab.cut(nil)
	done := make(chan bool)
	go func() {
		s.check(t, tab, 5, 1<<20)
		close(done)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tab.read(ctx, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(begin)
	<-done
	if n := len(s.ranges()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestCloseEndsReadsAndGoroutines(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(s *served, tab *table)
	}{
		{"store", func(s *served, _ *table) { s.fetcher.close() }},
		{"file", func(_ *served, tab *table) { tab.close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			goroutines(t)
			s := serve(t, 40<<20, Options{}, silent)
			tab := newTable(s.fetcher, s.object)
			tab.cut([]int64{100})
			errs := make(chan error)
			go func() {
				_, err := tab.read(context.Background(), make([]byte, 20<<20), 1000)
				errs <- err
			}()
			eventually(t, "the read waits", func() bool { return len(s.ranges()) > 0 })
			tab.ahead(30<<20, 10<<20)
			c.end(s, tab)
			if err := <-errs; !errors.Is(err, errClosed) {
				t.Errorf("error %v", err)
			}
			_, err := tab.read(context.Background(), make([]byte, 1), 0)
			if !errors.Is(err, errClosed) {
				t.Errorf("error afterwards: %v", err)
			}
			eventually(t, "memory is free", func() bool {
				m := s.traffic()
				return m.InFlight == 0 && s.memory.used == 0
			})
		})
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 2000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("it did not happen: %s", what)
}

func TestFilesThatAreNotShardsHaveBlocksFromTheBeginning(t *testing.T) {
	s := serve(t, 1<<20, Options{}, nil)
	s.object.name = "tokenizer.json"
	tab := newTable(s.fetcher, s.object)
	for off := int64(0); off < 1<<20; off += 128 << 10 {
		s.check(t, tab, off, 128<<10)
	}
	if got := s.ranges(); len(got) != 1 {
		t.Errorf("requests: %v", got)
	}
}

func TestExactRangesAreNotKept(t *testing.T) {
	s := serve(t, 20<<20, Options{}, nil)
	tab := newTable(s.fetcher, s.object)
	s.check(t, tab, 0, 8)
	s.check(t, tab, 8, 12<<20)
	if got := s.traffic(); s.memory.used != 0 || got.Bytes != 8+12<<20 {
		t.Errorf("%d bytes in use, %+v", s.memory.used, got)
	}
}

func TestAReadAtTheEndIsShort(t *testing.T) {
	s := serve(t, 100, Options{}, nil)
	p := make([]byte, 50)
	n, err := s.file().ReadAt(context.Background(), p, 70)
	if n != 30 || err == nil || err.Error() != "EOF" || !bytes.Equal(p[:30], s.data[70:]) {
		t.Errorf("%d, %v", n, err)
	}
}
