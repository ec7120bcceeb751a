package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// through opens the store through a proxy.
func (s *served) through(
	t *testing.T, plan faultproxy.Plan, o Options,
) (*table, *faultproxy.Proxy) {
	t.Helper()
	log.SetOutput(io.Discard) // net/http reports bytes without a request
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	p := faultproxy.New(t, s.server.URL, plan)
	f := newFetcher(&servedBackend{p.URL + "/file?X-Signature=secret", newClient(o)}, o)
	t.Cleanup(f.close)
	s.fetcher = f
	return s.shard(), p
}

// Through faults of every kind, a read gives right bytes or an error, and ends.
func TestNoFaultGivesWrongBytes(t *testing.T) {
	goroutines(t)
	faults := 0
	for _, seed := range size.Seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := serve(t, 6<<20, Options{}, nil)
			o := Options{Patience: 40 * time.Millisecond, Memory: 4 << 20, AtOnce: 8}
			tab, p := s.through(t, faultproxy.Plan{Seed: seed, Rate: 0.6}, o)
			var group sync.WaitGroup
			var right atomic.Int32
			for reader := range uint64(4) {
				group.Go(func() {
					r := rand.New(rand.NewPCG(seed, reader))
					for p.Faults() < size.Count(100, 3400) {
						if s.tolerant(t, tab, r) {
							right.Add(1)
						}
					}
				})
			}
			group.Wait()
			faults += p.Faults()
			p.Set(faultproxy.Plan{})
			s.consistent(t)
			t.Log(right.Load(), "reads succeeded; ", p.Counts(), fmt.Sprintf("%+v", s.traffic()))
			if right.Load() == 0 {
				t.Error("no read succeeded")
			}
		})
	}
	if faults < size.Count(300, 10_000) {
		t.Errorf("only %d faults", faults)
	}
}

// tolerant reads, and checks bytes or error. The time is a limit that only a hang reaches.
func (s *served) tolerant(t *testing.T, tab *table, r *rand.Rand) bool {
	off := r.Int64N(s.object.size)
	p := make([]byte, 1+r.Int64N(min(s.object.size-off, 1<<20)))
	if r.IntN(4) == 0 {
		tab.ahead(off, int64(len(p)))
	}
	hung := time.AfterFunc(time.Minute, func() { panic("a read hangs") })
	defer hung.Stop()
	_, err := tab.read(context.Background(), p, off)
	switch {
	case err != nil:
		noSecrets(t, err)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	case !bytes.Equal(p, s.data[off:off+int64(len(p))]):
		t.Errorf("wrong bytes in [%d, %d)", off, off+int64(len(p)))
	}
	return err == nil
}

// Each kind of fault passes if it happens twice, but for another version, which must be confirmed
// by one more request only.
func TestFaultsThatPassAreNotSeen(t *testing.T) {
	for _, kind := range faultproxy.All {
		t.Run(string(kind), func(t *testing.T) {
			s := serve(t, 1<<20+1<<19, Options{}, nil)
			faults := []faultproxy.Kind{kind, kind}
			if changes[kind] {
				faults = faults[:1]
			}
			tab, p := s.through(t, faultproxy.Plan{Script: faultproxy.Once(faults...)},
				Options{Patience: patienceFor(kind)})
			s.check(t, tab, 100, 1<<19)
			if p.Faults() == 0 {
				t.Errorf("faults: %v", p.Counts())
			}
		})
	}
}

// changes are the faults that look like another version.
var changes = map[faultproxy.Kind]bool{faultproxy.Other: true, faultproxy.WrongTotal: true}

// hangs are the faults that only the patience ends.
var hangs = map[faultproxy.Kind]bool{faultproxy.Hang: true, faultproxy.HangBody: true}

func patienceFor(k faultproxy.Kind) time.Duration {
	if hangs[k] {
		return 300 * time.Millisecond
	}
	return 3 * time.Second
}

func TestFaultsThatStayEndTheRead(t *testing.T) {
	for _, kind := range faultproxy.All {
		if kind == faultproxy.Long || kind == faultproxy.Cut || kind == faultproxy.Truncated ||
			kind == faultproxy.HangBody {
			continue // bytes arrive all the same
		}
		t.Run(string(kind), func(t *testing.T) {
			s := serve(t, 1<<20+1<<19, Options{}, nil)
			tab, p := s.through(t, faultproxy.Plan{Script: faultproxy.Always(kind)},
				Options{Patience: patienceFor(kind), Tries: 3})
			_, err := tab.read(t.Context(), make([]byte, 1000), 100)
			changed := changes[kind]
			if err == nil || errors.Is(err, source.ErrChanged) != changed {
				t.Fatalf("error %v", err)
			}
			want := map[bool]int{false: 3, true: 2}[changed]
			if p.Faults() != want && !hangs[kind] {
				t.Errorf("%d requests", p.Faults())
			}
			noSecrets(t, err)
			p.Set(faultproxy.Plan{})
			s.check(t, tab, 100, 1000) // errors are not remembered
		})
	}
}

// A server that cuts every connection is of use if it makes progress. One that does not ends the
// read.
func TestConnectionsThatAreAlwaysCut(t *testing.T) {
	for _, c := range []struct {
		each     int64 // bytes of a connection
		requests int
		ok       bool
	}{{256 << 10, 16, true}, {1, 3, false}, {0, 3, false}} {
		var s *served
		o := Options{Tries: 3}
		s = serve(t, 4<<20, o, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			first := s.header(w, r)
			_, _ = w.Write(s.data[first:min(first+c.each, s.object.size)])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		tab := newTable(s.fetcher, s.object)
		tab.cut(nil)
		p := make([]byte, 4<<20)
		_, err := tab.read(t.Context(), p, 0)
		if (err == nil) != c.ok || c.ok && !bytes.Equal(p, s.data) {
			t.Errorf("%d bytes each: error %v", c.each, err)
		}
		if n := len(s.ranges()); n != c.requests {
			t.Errorf("%d bytes each: %d requests", c.each, n)
		}
	}
}

func TestTheErrorNamesTheObject(t *testing.T) {
	o := Options{Tries: 1}
	s := serve(t, 1000, o, func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	_, err := s.file().ReadAt(t.Context(), make([]byte, 10), 0)
	text := fmt.Sprint(err)
	if !strings.HasPrefix(text, "x.safetensors: ") || !strings.Contains(text, "500") {
		t.Errorf("error %v", err)
	}
	noSecrets(t, err)
}

// A request that is much slower than the others is sent again, and the rest comes from the second.
func TestASlowRequestIsSentAgain(t *testing.T) {
	var slow atomic.Bool
	var s *served
	s = serve(t, 20<<20, Options{Patience: time.Second}, func(_ int, w http.ResponseWriter,
		r *http.Request) bool {
		if !slow.CompareAndSwap(true, false) {
			return false
		}
		return s.trickle(w, r)
	})
	tab := s.shard()
	s.check(t, tab, 0, 10<<20)
	for i := range int64(enoughSpeeds) {
		s.check(t, tab, (10+i)<<20, 1<<20)
	}
	slow.Store(true)
	s.check(t, tab, 19<<20, 1<<20)
	if got := s.traffic(); got.Retries == 0 {
		t.Errorf("%+v", got)
	}
}

// header sends the header of a right answer, and returns where the range begins.
func (s *served) header(w http.ResponseWriter, r *http.Request) (first int64) {
	var last int64
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, s.object.size))
	w.Header().Set("Content-Length", fmt.Sprint(last-first+1))
	w.WriteHeader(http.StatusPartialContent)
	return first
}

// trickle sends a few bytes at a time, so many that the request does not stall.
func (s *served) trickle(w http.ResponseWriter, r *http.Request) bool {
	for at := s.header(w, r); r.Context().Err() == nil; at += progress {
		if _, err := w.Write(s.data[at:min(at+progress, s.object.size)]); err != nil {
			break
		}
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond)
	}
	return true
}

// A store that is silent ends reads that wait for their turn, too.
func TestASilentStoreEndsAllReads(t *testing.T) {
	goroutines(t)
	s := serve(t, 40<<20, Options{Patience: 20 * time.Millisecond, Tries: 2, AtOnce: 1},
		silent)
	tab := s.shard()
	var group sync.WaitGroup
	for i := range int64(20) {
		group.Go(func() {
			if _, err := tab.read(t.Context(), make([]byte, 10), i<<21); err == nil {
				t.Error("no error")
			}
		})
	}
	group.Wait()
}

// A storm of refusals halves the requests at once, and passes.
func TestAStormPasses(t *testing.T) {
	s := serve(t, 40<<20, Options{}, nil)
	refused := faultproxy.Plan{Script: faultproxy.Once(
		faultproxy.Throttled, faultproxy.Unavailable, faultproxy.SlowDown, faultproxy.Throttled)}
	tab, _ := s.through(t, refused, Options{Patience: 3 * time.Second})
	var group sync.WaitGroup
	for i := range int64(40) {
		group.Go(func() { s.check(t, tab, i<<20, 1<<20) })
	}
	group.Wait()
	s.fetcher.mu.Lock()
	defer s.fetcher.mu.Unlock()
	if n := s.fetcher.counts.throttled; n != 4 || s.fetcher.limit.halved.IsZero() {
		t.Errorf("throttled %d times, limit %+v", n, s.fetcher.limit)
	}
}

// Slow connections are many, if more of them are faster.
func TestRequestsAtOnceGrow(t *testing.T) {
	s := serve(t, 64<<20, Options{}, nil)
	plan := faultproxy.Plan{PerConnection: 1 << 20}
	tab, _ := s.through(t, plan, Options{Patience: 2 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range int64(64) {
		group.Go(func() { _, _ = tab.read(ctx, make([]byte, 1<<20), i<<20) })
	}
	eventually(t, "more requests are sent at once", func() bool {
		return s.traffic().InFlight > firstRequests
	})
	cancel()
	group.Wait()
}
