package remote

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// fixed is a backend with a listing that does not change.
type fixed struct {
	servedBackend
	objects []object
}

func (f *fixed) list(context.Context, string, int) ([]object, error) { return f.objects, nil }

// Every object of a large folder is found. That would take minutes if each search went through it.
func TestObjectsOfALargeFolderAreFound(t *testing.T) {
	const count = 100_000
	b := &fixed{}
	for i := range count {
		b.objects = append(b.objects, object{name: fmt.Sprint("sub/", i), size: int64(i)})
	}
	s := newStore(b, newClient(Options{}), Options{})
	defer s.Close()
	for i := range count {
		o, err := s.Stat(t.Context(), fmt.Sprint("sub/./", i))
		if err != nil || o.Size != int64(i) {
			t.Fatalf("%d: %+v, %v", i, o, err)
		}
	}
	if _, err := s.Stat(t.Context(), "sub/none"); err != source.ErrMissing {
		t.Errorf("a name that is not there: %v", err)
	}
}

// Files that are opened and closed leave no descriptors, goroutines or memory.
func TestManyOpensLeaveNothing(t *testing.T) {
	goroutines(t)
	s := serve(t, 1<<20, Options{}, nil)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("this system does not list descriptors")
		}
		return len(list)
	}
	before := 0
	for i := range 1000 {
		if i == 10 {
			before = open()
		}
		f := s.file()
		p := make([]byte, 10)
		if _, err := f.ReadAt(t.Context(), p, int64(i)); err != nil ||
			!bytes.Equal(p, s.data[i:i+10]) {
			t.Fatalf("%q, %v", p, err)
		}
		_ = f.Close()
	}
	if now := open(); now > before+10 {
		t.Errorf("%d descriptors, then %d", before, now)
	}
	if n := len(s.tables) + len(s.streams) + len(s.flights); n != 0 || s.memory.used != 0 {
		t.Errorf("%d entries, %d bytes are left", n, s.memory.used)
	}
}

// Sixteen readers, some of which give up, and read-ahead stay within the memory, however little
// there is. A block that is larger than all of it is alone.
func TestReadersStayWithinTheMemory(t *testing.T) {
	goroutines(t)
	for _, most := range []int64{1 << 20, 9 << 20, 20 << 20} {
		s := serve(t, 40<<20, Options{Memory: most, AtOnce: 8}, nil)
		tab := newTable(s.fetcher, s.object)
		tab.cut(nil)
		stop := make(chan struct{})
		var peak atomic.Int64
		var watcher, readers sync.WaitGroup
		watcher.Go(func() {
			for {
				s.fetcher.mu.Lock()
				peak.Store(max(peak.Load(), s.memory.used+s.memory.freeBytes))
				s.fetcher.mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
		})
		for reader := range uint64(16) {
			readers.Go(func() {
				r := rand.New(rand.NewPCG(reader, uint64(most)))
				for range 20 {
					n := 1 + r.Int64N(3<<20)
					off := r.Int64N(40<<20 - n)
					tab.ahead(off, r.Int64N(20<<20))
					if r.IntN(4) == 0 {
						ctx, cancel := context.WithTimeout(t.Context(),
							time.Duration(r.Int64N(3e6)))
						_, _ = tab.read(ctx, make([]byte, n), off) // it may give up
						cancel()
						continue
					}
					s.check(t, tab, off, n)
				}
			})
		}
		readers.Wait()
		close(stop)
		watcher.Wait()
		if limit := max(most, roomy(blockSize)); peak.Load() > limit {
			t.Errorf("of %d bytes, %d were used", most, peak.Load())
		}
		s.consistent(t)
		tab.close()
	}
}
