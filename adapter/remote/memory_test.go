package remote

import (
	"errors"
	"testing"
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
