package units

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

func TestABufferIsAThirdLargerAtMost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	sizes := []int64{1, 4095, minMapped - 1, minMapped, minMapped + 1, hugePage, hugePage + 1,
		1<<30 - 1}
	for range 10_000 {
		sizes = append(sizes, 1+rng.Int64N(int64(1)<<(12+rng.IntN(20))))
	}
	for _, n := range sizes {
		size := bufferSize(n)
		if size < n || size > n+max(n/3, 64<<10) || n >= minMapped && size%(64<<10) != 0 ||
			n < minMapped && size != n {
			t.Errorf("%d bytes for %d", size, n)
		}
	}
	const MiB = 1 << 20
	for n, want := range map[int64]int64{14 * MiB: 14 * MiB, 3 * MiB: 4 * MiB, 1.5 * MiB: 2 * MiB,
		1.25 * MiB: 1.25 * MiB, 2.5 * MiB: 2.5 * MiB} {
		if size := bufferSize(n); size != want {
			t.Errorf("%d bytes for %d, want %d", size, n, want)
		}
	}
}

func TestABufferIsUsedAgainForItsSize(t *testing.T) {
	b := buffers{most: 8 << 20}
	defer b.free()
	first := b.get(2<<20 - 100)
	other := b.get(3 << 20)
	if len(first) != 2<<20-100 || len(other) != 3<<20 {
		t.Fatalf("%d and %d bytes", len(first), len(other))
	}
	at := unsafe.SliceData(first)
	b.put(first)
	b.put(other)
	if b.held != 6<<20 { // 3 MiB take 4 MiB
		t.Errorf("%d bytes are kept", b.held)
	}
	again := b.get(2 << 20)
	if unsafe.SliceData(again) != at || len(again) != 2<<20 {
		t.Error("it was not used again")
	}
	b.put(again)
}

func TestOfFreeBuffersTheOldestGoFirst(t *testing.T) {
	b := buffers{most: 4 << 20}
	defer b.free()
	all := [][]byte{b.get(1 << 20), b.get(2 << 20), b.get(2<<20 + 1)}
	for _, buf := range all {
		b.put(buf)
	}
	if b.held > b.most || len(b.list) != 1 {
		t.Errorf("%d bytes are kept, in %d buffers", b.held, len(b.list))
	}
	b.put(b.getWithin(4<<20, b.most-b.held)) // kept buffers stay
	if len(b.list) != 1 || b.held != 4<<20 {
		t.Errorf("%d bytes are kept, in %d buffers", b.held, len(b.list))
	}
	b.put(b.getWithin(2<<20, 0)) // kept buffers are freed
	if len(b.list) != 1 || b.held != 2<<20 {
		t.Errorf("%d bytes are kept, in %d buffers", b.held, len(b.list))
	}
}

func TestABufferThatComesBackLateIsNotKept(t *testing.T) {
	b := buffers{most: 8 << 20}
	buf := b.get(2 << 20)
	b.free()
	b.put(buf)
	if b.held != 0 || len(b.list) != 0 {
		t.Errorf("%d bytes are kept, in %d buffers", b.held, len(b.list))
	}
}

// memory returns the bytes of units and free buffers together.
func (c *Cache) memory() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buffers.mu.Lock()
	defer c.buffers.mu.Unlock()
	n := c.buffers.held
	for _, e := range c.entries {
		n += int64(cap(e.buf))
	}
	return n
}

// No unit is larger than a reader's share, so no read is admitted beyond the budget.
func TestUnitsAndFreeBuffersStayWithinTheBudget(t *testing.T) {
	for _, readers := range []int{1, 8} {
		t.Run(fmt.Sprint(readers), func(t *testing.T) { fillMixed(t, readers) })
	}
}

func fillMixed(t *testing.T, readers int) {
	const budget, fills = 96 << 20, 1600
	c, f := testCache(t, budget)
	c.grace, c.patience = 0, 0
	var units []*fakeUnit
	for i, size := range []int64{300_000, 1_100_000, 2 << 20, 3_000_001, 5 << 20, 9_000_000} {
		for _, u := range fakeUnits(20, size) {
			u.number += int64(20 * i) // each list has a file of its own, but numbers are bytes
			units = append(units, u)
		}
	}
	var most atomic.Int64
	var wg sync.WaitGroup
	for reader := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(reader)))
			for range fills / readers {
				u := units[rng.IntN(len(units))]
				if err := use(context.Background(), f, u.number<<23, u.size, u); err != nil {
					t.Error(err)
					return
				}
				for now, old := c.memory(),
					most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
			}
		})
	}
	wg.Wait()
	if n := c.memory(); n > budget {
		t.Errorf("%d bytes at the end, and the budget is %d", n, budget)
	}
	if readers == 1 && most.Load() > budget {
		t.Errorf("%d bytes, and the budget is %d", most.Load(), budget)
	}
	if most.Load() < budget/2 {
		t.Errorf("only %d bytes: nothing was shown", most.Load())
	}
}
