package units

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
	kind   expr.UnitKind
	fills  atomic.Int64
	hook   func() error
}

func (u *fakeUnit) Key() expr.UnitKey {
	return expr.UnitKey{File: u.file, Offset: u.number, Kind: u.kind}
}
func (u *fakeUnit) Size() int64    { return u.size }
func (u *fakeUnit) String() string { return fmt.Sprintf("unit %d", u.number) }

func (u *fakeUnit) Fill(_ expr.FillEnv, dst []byte) error {
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
func testCache(t *testing.T, budget int64) (*Cache, *testFile) {
	t.Helper()
	return newTestCache(t, Limits{Units: budget}, testLogger(t))
}

func newTestCache(t *testing.T, l Limits, log *slog.Logger) (*Cache, *testFile) {
	t.Helper()
	l.Strips = max(l.Strips, 8)
	c := New(Options{Limits: l, Workers: 1, Logger: log, Slow: log, SlowAfter: time.Minute,
		Tuning: Tuning{Check: true}})
	t.Cleanup(func() {
		c.Close()
		if c.used != 0 || len(c.entries) != 0 || len(c.queue) != 0 {
			t.Errorf("after Close: %d bytes used, %d entries, %d waiting", c.used, len(c.entries),
				len(c.queue))
		}
	})
	return c, &testFile{cache: c, size: 1 << 30}
}

// testFile is a virtual file with one stream.
type testFile struct {
	cache *Cache
	size  int64
	node  expr.Node // of all bytes; nil: of none
	front atomic.Int64
}

func (f *testFile) Size() int64                            { return f.size }
func (f *testFile) Recipe(int64) (expr.Node, int64, int64) { return f.node, 0, f.size }
func (f *testFile) Beyond(_ Run, off int64) bool           { return f.front.Load() >= off }

// begin begins to read [off, off+n).
func (f *testFile) begin(ctx context.Context, off, n int64) *Read {
	r := f.cache.NewRead()
	run := Run{Clock: f.cache.Tick(), Sequential: f.front.Load() == off}
	f.front.Store(max(f.front.Load(), off+n))
	r.Begin(ctx, f, off, n, run)
	return r
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

// use gets units in one read of [off, off+n) and checks their bytes.
func use(ctx context.Context, f *testFile, off, n int64, units ...*fakeUnit) (err error) {
	r := f.begin(ctx, off, n)
	defer func() { r.End(err == nil) }()
	for _, u := range units {
		r.Want(u)
	}
	if err := r.Acquire(); err != nil {
		return err
	}
	for _, u := range units {
		e := r.find(u.Key())
		if got := e.Bytes(); int64(len(got)) != u.size || got[0] != byte(u.number) ||
			got[u.size-1] != byte(u.number) {
			return fmt.Errorf("%v: wrong bytes", u)
		}
	}
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
	eventually(t, "16 wait", func() bool { return c.Stats().Waiting == 16 })
	close(hold)
	wg.Wait()
	if n := u.fills.Load(); n != 1 {
		t.Errorf("filled %d times", n)
	}
	if s := c.Stats(); s.Pinned != 0 || s.CacheUsed != 1000 || s.Units != 1 {
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
			eventually(t, "8 wait", func() bool { return c.Stats().Waiting == 8 })
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
	c, file := newTestCache(t, Limits{Units: 1 << 20}, slog.New(slog.NewTextHandler(log, nil)))
	u := fakeUnits(1, 1000)[0]
	u.hook = func() error { panic("boom") }
	if err := use(context.Background(), file, 0, 1, u); err == nil {
		t.Error("no error")
	}
	if got := log.String(); !strings.Contains(got, "boom") || !strings.Contains(got, "fakeUnit") {
		t.Errorf("log: %s", got)
	}
	if n := c.Stats().Panics; n != 1 {
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
	eventually(t, "both wait", func() bool { return c.Stats().Waiting == 2 })
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
	first := f.begin(ctx, 0, 1)
	first.Want(u[0])
	first.Want(u[1])
	if err := first.Acquire(); err != nil {
		t.Fatal(err)
	}
	second, third := make(chan error), make(chan error)
	go func() { second <- use(context.Background(), f, 0, 1, u[2]) }()
	eventually(t, "the second waits", func() bool { return c.Stats().Waiting == 1 })
	go func() { third <- use(ctx, f, 0, 1, u[3]) }()
	eventually(t, "both wait", func() bool { return c.Stats().Waiting == 2 })
	// a read whose units are present does not wait
	if err := use(context.Background(), f, 0, 1, u[0], u[1]); err != nil {
		t.Error(err)
	}
	cancel() // a reader that gives up leaves the queue
	if err := <-third; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := u[2].fills.Load() + u[3].fills.Load(); n != 0 {
		t.Error("a fill did not wait")
	}
	first.End(false)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := u[3].fills.Load(); n != 0 {
		t.Error("the cancelled fill ran")
	}
	if s := c.Stats(); s.CacheUsed > 2500 {
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
						if err := use(context.Background(), f, off, 4096, units[i],
							units[j]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if s := c.Stats(); s.CacheUsed > max(budget, 0) || s.Pinned != 0 || s.Filling != 0 ||
				s.Waiting != 0 {
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
	if s := c.Stats(); s.Pinned != 0 || s.Waiting != 0 {
		t.Errorf("afterwards %+v", s)
	}
}

func TestUnitsReadToTheirEndGoFirst(t *testing.T) {
	c, f := testCache(t, 3000)
	u := fakeUnits(4, 1000)
	ctx := context.Background()
	// at first the span is the whole file
	for i, n := range []int64{1024, f.Size(), 4096} {
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
