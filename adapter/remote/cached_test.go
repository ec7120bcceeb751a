package remote

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// diskInMemory is a disk cache in memory.
type diskInMemory struct {
	mu     sync.Mutex
	blocks map[int64][]byte
	writes atomic.Int32
	gate   chan bool // each write waits for it; nil: none does
	fails  bool      // reads find nothing
}

func (k *diskInMemory) Read(_ *object, off, n int64, p []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.blocks[off]
	if int64(len(b)) != n || k.fails {
		clear(p)
		return false
	}
	copy(p, b)
	return true
}

func (k *diskInMemory) Write(_ *object, off int64, p []byte) {
	if k.gate != nil {
		<-k.gate
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blocks[off] = bytes.Clone(p)
	k.writes.Add(1)
}

func TestBlocksComeFromTheDiskCache(t *testing.T) {
	goroutines(t)
	c := &diskInMemory{blocks: map[int64][]byte{}}
	s := serve(t, 16<<20, Options{}, nil)
	s.fetcher.cache = c
	tab := s.shard()
	s.check(t, tab, 0, 8<<20)
	eventually(t, "eight blocks are written", func() bool { return c.writes.Load() == 8 })
	first := s.traffic()
	if first.CacheHits != 0 || first.CacheMisses != 8 || first.Bytes != 8<<20 {
		t.Errorf("%+v", first)
	}

	again := s.open(Options{})
	defer again.close()
	again.cache = c
	s.fetcher = again
	tab = s.shard()
	tab.ahead(2<<20, 3<<20)
	s.check(t, tab, 0, 9<<20)
	got := again.traffic()
	if got.CacheHits != 8 || got.CacheBytes != 8<<20 || got.Bytes != 1<<20 {
		t.Errorf("%+v", got)
	}
}

func TestAMissInTheDiskCacheIsFetched(t *testing.T) {
	c := &diskInMemory{blocks: map[int64][]byte{}, fails: true}
	s := serve(t, 16<<20, Options{Memory: 3 << 20}, nil)
	s.fetcher.cache = c
	tab := s.shard()
	for range 2 {
		tab.ahead(0, 3<<20)
		s.check(t, tab, 0, 16<<20)
	}
	s.consistent(t)
}

// A disk that never finishes a write takes the memory of the blocks that are being written, and no
// other.
func TestASlowDiskDoesNotStopReaders(t *testing.T) {
	c := &diskInMemory{blocks: map[int64][]byte{}, gate: make(chan bool)}
	s := serve(t, 32<<20, Options{Memory: 4 << 20}, nil)
	s.fetcher.cache = c
	tab := s.shard()
	s.check(t, tab, 0, 32<<20)
	if n := c.writes.Load(); n != 0 {
		t.Errorf("%d writes", n)
	}
	within(t, s.fetcher, 4<<20)
	close(c.gate)
	eventually(t, "the writes end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fetcher.mu.Lock()
		defer s.fetcher.mu.Unlock()
		return s.fetcher.writes.running == 0
	})
}

func TestAReaderLeavesWhileTheDiskIsAsked(t *testing.T) {
	goroutines(t)
	s := serve(t, 4<<20, Options{}, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	c := &stuck{begun: make(chan bool), end: make(chan bool)}
	s.fetcher.cache = c
	tab := s.shard()
	errs := make(chan error)
	go func() {
		_, err := tab.read(t.Context(), make([]byte, 10), 0)
		errs <- err
	}()
	<-c.begun
	tab.close()
	if err := <-errs; err == nil {
		t.Error("no error")
	}
	close(c.end)
	eventually(t, "memory is free", func() bool {
		s.fetcher.mu.Lock()
		defer s.fetcher.mu.Unlock()
		return s.fetcher.memory.used == 0
	})
}

// stuck is a disk that does not answer until it is told to.
type stuck struct{ begun, end chan bool }

func (s *stuck) Read(*object, int64, int64, []byte) bool {
	close(s.begun)
	<-s.end
	return false
}
func (s *stuck) Write(*object, int64, []byte) {}

// Blocks wait for a slow disk as long as there is memory for them.
func TestBlocksWaitForASlowDisk(t *testing.T) {
	c := &diskInMemory{blocks: map[int64][]byte{}, gate: make(chan bool)}
	s := serve(t, 32<<20, Options{Memory: 64 << 20}, nil)
	s.fetcher.cache = c
	s.check(t, s.shard(), 0, 32<<20)
	close(c.gate)
	eventually(t, "all blocks are written", func() bool { return c.writes.Load() == 32 })
}

// Blocks that are on the disk give up their memory early, so that less of it is touched.
func TestBlocksOfTheDiskCacheTakeLittleMemory(t *testing.T) {
	const size, budget = 16 << 20, 32 << 20
	c := &diskInMemory{blocks: map[int64][]byte{}}
	s := serve(t, size, Options{Memory: budget}, nil)
	s.fetcher.cache = c
	tab := s.shard()
	s.check(t, tab, 0, size)
	eventually(t, "all blocks are written", func() bool {
		return len(tab.blocks) > 0 &&
			int(c.writes.Load()) == size>>20
	})
	again := s.open(Options{Memory: budget})
	defer again.close()
	again.cache = c
	s.fetcher = again
	tab = s.shard()
	for i := range int64(size >> 20) {
		s.check(t, tab, i<<20, 1<<20)
	}
	got := s.traffic()
	if got.Memory > budget/spentOnDisk+1<<20 || got.Bytes != 0 {
		t.Errorf("%d bytes in memory, %d of the network", got.Memory, got.Bytes)
	}
}

// The header of a shard is read before the shard has blocks. It is kept too, so that a second mount
// asks for no byte.
func TestExactRangesAreKeptInTheDiskCache(t *testing.T) {
	c := &diskInMemory{blocks: map[int64][]byte{}, gate: make(chan bool)}
	s := serve(t, 1<<20, Options{}, nil)
	s.fetcher.cache = c
	tab := newTable(s.fetcher, s.object)
	s.check(t, tab, 0, 1000)
	close(c.gate)
	eventually(t, "the range is written", func() bool { return c.writes.Load() == 1 })
	eventually(t, "its memory is free", func() bool {
		s.fetcher.mu.Lock()
		defer s.fetcher.mu.Unlock()
		return len(tab.exact) == 0 && s.fetcher.memory.used == 0
	})
}
