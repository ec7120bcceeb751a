package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// noFile names units in tests.
type noFile struct {
	steady.File
	name string
}

func (f *noFile) Name() string { return f.name }
func (f *noFile) Size() int64  { return 1 << 40 }

func (f *noFile) ReadAt(context.Context, []byte, int64) (int, error) { return 0, io.EOF }

// fakeUnit is filled with its number, after hook.
type fakeUnit struct {
	file   expr.File
	number int64
	size   int64
	fills  atomic.Int64
	hook   func() error
}

func (u *fakeUnit) Key() expr.UnitKey { return expr.UnitKey{File: u.file, Offset: u.number} }
func (u *fakeUnit) Size() int64       { return u.size }
func (u *fakeUnit) String() string    { return fmt.Sprintf("unit %d", u.number) }

func (u *fakeUnit) Fill(env *expr.Env, dst []byte) error {
	u.fills.Add(1)
	if u.hook != nil {
		if err := u.hook(); err != nil {
			return err
		}
	}
	for i := range dst {
		dst[i] = byte(u.number)
	}
	return nil
}

// testCache is a cache of budget bytes, with an account that is checked at every change.
func testCache(t *testing.T, budget int64) (*cache, *file) {
	t.Helper()
	f, err := New(nil, nil, Options{CacheSize: budget, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	f.cache.checked = true
	t.Cleanup(func() {
		f.Close()
		if f.cache.used != 0 || len(f.cache.entries) != 0 || len(f.cache.queue) != 0 {
			t.Errorf("after Close: %d bytes used, %d entries, %d waiting", f.cache.used, len(f.cache.entries), len(f.cache.queue))
		}
	})
	return f.cache, &file{fs: f, name: "f", segments: []*segment{{}}, ends: []int64{1 << 30}}
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(&logTo{t: t}, nil))
}

// logTo logs to a test as long as that runs.
type logTo struct {
	mu  sync.Mutex
	t   *testing.T
	all bytes.Buffer
}

func (l *logTo) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	return len(p), nil
}

func (l *logTo) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// fakeUnits makes n units of size bytes.
func fakeUnits(n int, size int64) []*fakeUnit {
	units := make([]*fakeUnit, n)
	at := &noFile{name: "s"}
	for i := range units {
		units[i] = &fakeUnit{file: at, number: int64(i + 1), size: size}
	}
	return units
}

// use gets units in one session that reads [off, off+n) and checks their bytes.
func use(ctx context.Context, f *file, off, n int64, units ...*fakeUnit) error {
	s := f.fs.session(ctx, f, off, n)
	defer s.end()
	s.run = f.streams.touch(f.Size(), off, n, f.fs.clock.Add(1))
	for _, u := range units {
		s.wants = append(s.wants, u)
	}
	if err := f.fs.cache.acquire(ctx, s); err != nil {
		return err
	}
	for _, u := range units {
		e := s.find(u.Key())
		if got := e.Bytes(); int64(len(got)) != u.size || got[0] != byte(u.number) || got[u.size-1] != byte(u.number) {
			return fmt.Errorf("%v: wrong bytes", u)
		}
	}
	s.served = true
	return nil
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (c *cache) snapshot() (s Stats) {
	c.stats(&s)
	return s
}

func TestOneFillServesAllWhoWait(t *testing.T) {
	c, f := testCache(t, 1<<20)
	u := fakeUnits(1, 1000)[0]
	hold := make(chan struct{})
	u.hook = func() error { <-hold; return nil }
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := use(context.Background(), f, 0, 1000, u); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "16 wait", func() bool { return c.snapshot().Waiting == 16 })
	close(hold)
	wg.Wait()
	if n := u.fills.Load(); n != 1 {
		t.Errorf("filled %d times", n)
	}
	if s := c.snapshot(); s.Pinned != 0 || s.CacheUsed != 1000 || s.Units != 1 {
		t.Errorf("afterwards %+v", s)
	}
}

func TestAFailedFillFailsAllWaitersAndIsNotKept(t *testing.T) {
	for name, hook := range map[string]func() error{
		"error": func() error { return io.ErrUnexpectedEOF },
		"panic": func() error { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			c, f := testCache(t, 1<<20)
			u := fakeUnits(1, 1000)[0]
			hold := make(chan struct{})
			u.hook = func() error { <-hold; return hook() }
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					err := use(context.Background(), f, 0, 1000, u)
					var p *PanicError
					if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &p) {
						t.Errorf("got %v", err)
					}
				})
			}
			eventually(t, "8 wait", func() bool { return c.snapshot().Waiting == 8 })
			close(hold)
			wg.Wait()
			u.hook = nil
			if err := use(context.Background(), f, 0, 1000, u); err != nil {
				t.Errorf("the next read: %v", err)
			}
		})
	}
}

func TestAPanicIsLoggedWithItsStack(t *testing.T) {
	log := &logTo{}
	f, err := New(nil, nil, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file := &file{fs: f, segments: []*segment{{}}, ends: []int64{1 << 20}}
	u := fakeUnits(1, 1000)[0]
	u.hook = func() error { panic("boom") }
	if err := use(context.Background(), file, 0, 1, u); err == nil {
		t.Error("no error")
	}
	if got := log.String(); !strings.Contains(got, "boom") || !strings.Contains(got, "fakeUnit") {
		t.Errorf("log: %s", got)
	}
	if n := f.Stats().Panics; n != 1 {
		t.Errorf("%d panics counted", n)
	}
}

func TestACancelledReaderLeavesTheFillToOthers(t *testing.T) {
	c, f := testCache(t, 1<<20)
	u := fakeUnits(1, 1000)[0]
	hold := make(chan struct{})
	u.hook = func() error { <-hold; return nil }
	ctx, cancel := context.WithCancel(context.Background())
	gone, stays := make(chan error), make(chan error)
	go func() { gone <- use(ctx, f, 0, 1000, u) }()
	go func() { stays <- use(context.Background(), f, 0, 1000, u) }()
	eventually(t, "both wait", func() bool { return c.snapshot().Waiting == 2 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	close(hold)
	if err := <-stays; err != nil {
		t.Errorf("the other: %v", err)
	}
	if n := u.fills.Load(); n != 1 {
		t.Errorf("filled %d times", n)
	}
}

func TestAFillWaitsWhileTheBudgetIsFull(t *testing.T) {
	c, f := testCache(t, 2500)
	u := fakeUnits(4, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	first := f.fs.session(ctx, f, 0, 1)
	first.wants = []unit{u[0], u[1]}
	if err := c.acquire(ctx, first); err != nil {
		t.Fatal(err)
	}
	second, third := make(chan error), make(chan error)
	go func() { second <- use(context.Background(), f, 0, 1, u[2]) }()
	eventually(t, "the second waits", func() bool { return c.snapshot().Waiting == 1 })
	go func() { third <- use(ctx, f, 0, 1, u[3]) }()
	eventually(t, "both wait", func() bool { return c.snapshot().Waiting == 2 })
	if err := use(context.Background(), f, 0, 1, u[0], u[1]); err != nil { // whose units are there does not wait
		t.Error(err)
	}
	cancel() // a reader that gives up leaves the queue
	if err := <-third; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := u[2].fills.Load() + u[3].fills.Load(); n != 0 {
		t.Error("a fill did not wait")
	}
	first.end()
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := u[3].fills.Load(); n != 0 {
		t.Error("the cancelled fill ran")
	}
	if s := c.snapshot(); s.CacheUsed > 2500 {
		t.Errorf("%d bytes used", s.CacheUsed)
	}
}

func TestEveryBudgetWorks(t *testing.T) {
	for _, budget := range []int64{-1, 1, 999, 1000, 2000, 5000, 1 << 20} {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			c, f := testCache(t, budget)
			units := fakeUnits(12, 1000)
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(g), 1))
					for range 60 {
						i, off := rng.IntN(len(units)), rng.Int64N(1<<29)
						j := (i + 1) % len(units)
						if err := use(context.Background(), f, off, 4096, units[i], units[j]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if s := c.snapshot(); s.CacheUsed > max(budget, 0) || s.Pinned != 0 || s.Filling != 0 || s.Waiting != 0 {
				t.Errorf("afterwards %+v", s)
			}
		})
	}
}

func TestCancelledReadersKeepTheAccount(t *testing.T) {
	c, f := testCache(t, 3000)
	units := fakeUnits(12, 1000)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			for range 60 {
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(2) == 0 {
					go cancel()
				}
				i := rng.IntN(len(units))
				err := use(ctx, f, rng.Int64N(1<<29), 4096, units[i], units[(i+1)%len(units)])
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s := c.snapshot(); s.Pinned != 0 || s.Waiting != 0 {
		t.Errorf("afterwards %+v", s)
	}
}

func TestUnitsReadToTheirEndGoFirst(t *testing.T) {
	c, f := testCache(t, 3000)
	u := fakeUnits(4, 1000)
	ctx := context.Background()
	for i, n := range []int64{1024, f.Size(), 4096} { // as far as is known, the whole file needs a unit
		if err := use(ctx, f, 0, n, u[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := use(ctx, f, 1<<29, 1, u[3]); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[u[1].Key()] != nil {
		t.Error("the unit that was read to its end is still there")
	}
}
