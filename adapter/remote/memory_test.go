package remote

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestTheDefaultBudgetIsATenthOfTheMemory(t *testing.T) {
	for text, want := range map[string]int64{
		"MemFree: 1 kB\nMemTotal:     1048576 kB\n": 1 << 30 / 10,
		"MemTotal: 104857600 kB\n":                  mostMemory,
		"MemTotal: lots\n":                          mostMemory / 2,
		"":                                          mostMemory / 2,
	} {
		got := defaultMemory(func(string) ([]byte, error) {
			return []byte(text), errors.New("maybe")
		})
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestBuffersAreHardlyLargerThanTheirBlocks(t *testing.T) {
	for n := int64(1); n <= blockSize; n += 1 + n/7 {
		if r := roomy(n); r < n || r > n+max(n/8, 4<<10) {
			t.Errorf("%d bytes for a block of %d", r, n)
		}
	}
	if roomy(blockSize) != blockSize {
		t.Errorf("%d bytes for the largest block", roomy(blockSize))
	}
}

func TestABlockThatIsLargerThanTheBudgetIsReadAlone(t *testing.T) {
	s := serve(t, 4<<20, Options{Memory: 1000}, nil)
	tab := s.shard()
	if tab.ahead(0, 1) {
		t.Error("there is no room to fetch ahead")
	}
	s.check(t, tab, 0, 4<<20)
	if s.memory.used > 1<<20 {
		t.Errorf("%d bytes are used", s.memory.used)
	}
	s.consistent(t)
}

func TestMemoryOfBlocksThatWereReadIsUsedAgain(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 16 << 20}, nil)
	tab := s.shard()
	for i := range int64(16) {
		s.check(t, tab, i<<20, 1<<20)
	}
	if got := s.traffic().Memory; got > 16<<20/spentShare+1<<20 {
		t.Errorf("%d bytes in memory", got)
	}
}

// A block that was fetched ahead has its memory before it has its turn. Once a reader wants it, it
// must not wait for that of blocks that wait for its memory.
func TestBlocksThatHaveMemoryAreNotBehindThoseThatWaitForIt(t *testing.T) {
	goroutines(t)
	s := serve(t, 3*blockSize, Options{Memory: 2 * blockSize, Patience: time.Minute}, nil)
	tab := newTable(s.fetcher, &object{name: "x", size: s.object.size, etag: servedTag})
	defer tab.close()
	s.fetcher.mu.Lock()
	s.fetcher.limit.until = time.Now().Add(time.Second) // as after a 503
	s.fetcher.mu.Unlock()
	if !tab.ahead(0, 2*blockSize) {
		t.Fatal("there is no memory to fetch ahead")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var group sync.WaitGroup
	for _, block := range []int64{2, 0, 1} { // in this order
		group.Go(func() {
			p := make([]byte, 10)
			if _, err := tab.read(ctx, p, block*blockSize); err != nil {
				t.Errorf("block %d: %v", block, err)
			} else if !bytes.Equal(p, s.data[block*blockSize:][:10]) {
				t.Errorf("block %d: wrong bytes", block)
			}
		})
		eventually(t, "the reader waits", func() bool {
			s.fetcher.mu.Lock()
			defer s.fetcher.mu.Unlock()
			b := tab.blocks[int(block)]
			return b != nil && len(b.waiting) == 1
		})
	}
	group.Wait()
}
