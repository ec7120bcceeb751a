package remote

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// shard is a table of blocks of 1 MiB.
func (s *served) shard() *table {
	t := newTable(s.fetcher, s.object)
	var begins []int64
	for at := int64(1 << 20); at < s.object.size; at += 1 << 20 {
		begins = append(begins, at)
	}
	t.cut(begins)
	return t
}

func TestBytesAreFetchedAhead(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 32 << 20}, nil)
	tab := s.shard()
	if !tab.ahead(1<<20, 4<<20) {
		t.Fatal("there is room")
	}
	eventually(t, "the blocks are there", func() bool { return s.traffic().Bytes == 4<<20 })
	before := len(s.ranges())
	s.check(t, tab, 1<<20, 4<<20)
	if n := len(s.ranges()); n != before {
		t.Errorf("%d requests ahead, %d more by the read", before, n-before)
	}
}

func TestAheadStaysInsideTheFile(t *testing.T) {
	s := serve(t, 2<<20, Options{}, nil)
	tab := s.shard()
	for _, c := range [][2]int64{
		{-10, 5}, {-10, 20}, {2<<20 - 1, 100}, {2 << 20, 1}, {3 << 20, 5}, {0, 1 << 40},
	} {
		if !tab.ahead(c[0], c[1]) {
			t.Errorf("%v: false", c)
		}
	}
	s.check(t, tab, 0, 2<<20)
}

func TestAheadOfAFileThatIsNotCutDoesNothing(t *testing.T) {
	s := serve(t, 2<<20, Options{}, nil)
	if newTable(s.fetcher, s.object).ahead(0, 100) || len(s.ranges()) != 0 {
		t.Errorf("requests: %v", s.ranges())
	}
}

func TestBlocksAheadDoNotEvictEachOther(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 5 << 20}, nil)
	tab := s.shard()
	if tab.ahead(0, 8<<20) {
		t.Error("eight blocks are said to fit in five")
	}
	eventually(t, "five blocks are there", func() bool { return s.traffic().Bytes == 5<<20 })
	s.check(t, tab, 0, 5<<20)
	if got := s.traffic().Bytes; got != 5<<20 {
		t.Errorf("transferred %d bytes: a block that was fetched ahead was evicted", got)
	}
	if !tab.ahead(5<<20, 5<<20) {
		t.Error("blocks that were read are not evicted for others")
	}
}

func TestAReaderEvictsBlocksAheadLastFirst(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 4 << 20}, nil)
	tab := s.shard()
	tab.ahead(0, 4<<20)
	eventually(t, "four blocks are there", func() bool { return s.traffic().Bytes == 4<<20 })
	s.check(t, tab, 10<<20, 1<<20)
	s.check(t, tab, 0, 3<<20)
	if got := s.traffic().Bytes; got != 5<<20 {
		t.Errorf("transferred %d bytes", got)
	}
}

func TestUnreadBlocksAheadAgeAway(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 4 << 20}, nil)
	s.fetcher.times.stale = 100 * time.Millisecond
	tab := s.shard()
	tab.ahead(0, 4<<20)
	eventually(t, "there is room again", func() bool { return tab.ahead(8<<20, 4<<20) })
	s.check(t, tab, 8<<20, 4<<20)
}

// A reader gets its turn before what is fetched ahead.
func TestReadersComeFirst(t *testing.T) {
	begin := make(chan bool)
	s := serve(t, 64<<20, Options{AtOnce: 1}, func(int, http.ResponseWriter, *http.Request) bool {
		<-begin
		return false
	})
	tab := s.shard()
	tab.ahead(0, 48<<20)
	done := make(chan bool)
	go func() {
		s.check(t, tab, 60<<20, 1<<20)
		close(done)
	}()
	eventually(t, "the reader waits", func() bool {
		s.fetcher.mu.Lock()
		defer s.fetcher.mu.Unlock()
		return tab.active == 1
	})
	close(begin)
	<-done
	if got := s.ranges()[1]; got != "bytes=62914560-63963135" {
		t.Errorf("the second request is %s", got)
	}
}

func TestTheDistanceIsBounded(t *testing.T) {
	for _, c := range []struct {
		memory        int64
		rate, seconds float64
		streams       int
		want          int64
	}{
		{1 << 30, 0, 0, 1, leastDistance},
		{1 << 30, 100e6, 0.2, 1, leastDistance},
		{1 << 30, 500e6, 0.1, 1, 100e6},
		{1 << 30, 10e9, 1, 1, firstRequests * blockSize},
		{32 << 20, 10e9, 1, 1, 16 << 20},
		{256 << 20, 10e9, 1, 4, 32 << 20},
		{256 << 20, 10e9, 1, 100, 16 << 20},
		{1, 0, 0, 1, 1},
	} {
		f := newFetcher(nil, Options{Memory: c.memory})
		now := time.Now()
		for i := range f.meter.seconds {
			f.meter.add(now.Add(-time.Duration(i)*time.Second), int64(c.rate))
		}
		for range enoughSpeeds {
			f.speeds.add(leastSpeed, time.Duration(c.seconds*float64(time.Second)), true)
		}
		for range c.streams {
			newTable(f, &object{size: 10, name: "x"}).ahead(0, 0)
		}
		if got := f.distance(); got > c.want*13/10 || got < c.want*7/10 {
			t.Errorf("%+v: %d", c, got)
		}
		f.close()
	}
}

// The memory that is used never exceeds the budget while readers and read-ahead compete.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	const budget = 6 << 20
	var s *served
	o := Options{Memory: budget}
	s = serve(t, 48<<20, o, func(int, http.ResponseWriter, *http.Request) bool {
		if m := s.traffic().Memory; m > budget {
			t.Errorf("%d bytes in memory", m)
		}
		return false
	})
	tab := s.shard()
	done := make(chan bool)
	for reader := range uint64(6) {
		go func() {
			r := rand.New(rand.NewPCG(reader, 0))
			for range size.Count(4, 40) {
				off := r.Int64N(40 << 20)
				tab.ahead(off, r.Int64N(8<<20))
				s.check(t, tab, off, 1+r.Int64N(4<<20))
			}
			done <- true
		}()
	}
	for range 6 {
		<-done
	}
	within(t, s.fetcher, budget)
	s.consistent(t)
	if s.memory.spent.Len()+s.memory.part.Len()+s.memory.early.Len() == 0 {
		t.Error("no block was kept")
	}
}

func TestMemoryIsFreedWhenNothingIsRead(t *testing.T) {
	s := serve(t, 16<<20, Options{}, nil)
	s.fetcher.times.stale = 20 * time.Millisecond
	tab := s.shard()
	s.check(t, tab, 0, 4<<20)
	tab.ahead(4<<20, 4<<20)
	eventually(t, "memory is free", func() bool { return s.traffic().Memory == 0 })
}

// Readers read small pieces. A block stays until its last piece was read, although others are
// fetched ahead.
func TestABlockThatIsReadInPiecesIsNotEvictedForBlocksAhead(t *testing.T) {
	for _, fetched := range []bool{false, true} {
		s := serve(t, 16<<20, Options{Memory: 4 << 20}, nil)
		s.fetcher.times.recent = time.Hour
		tab := s.shard()
		if fetched {
			tab.ahead(0, 1<<20)
		}
		s.check(t, tab, 0, 1000)
		tab.ahead(4<<20, 8<<20)
		eventually(t, "the block is there", func() bool { return s.traffic().Bytes == 4<<20 })
		for off := int64(1000); off < 1<<20; off += 100_000 {
			s.check(t, tab, off, min(100_000, 1<<20-off))
			tab.ahead(4<<20, 8<<20)
		}
		if got := s.traffic().Bytes; got > 5<<20 {
			t.Errorf("transferred %d bytes", got)
		}
		if got := s.ranges()[0]; got != "bytes=0-1048575" {
			t.Errorf("the first request is %s", got)
		}
	}
}

// A reader that skips parts of blocks leaves none of them read to its end.
func TestBlocksThatWereReadInPartGiveWayAfterAWhile(t *testing.T) {
	s := serve(t, 16<<20, Options{Memory: 4 << 20}, nil)
	s.fetcher.times.recent = 20 * time.Millisecond
	tab := s.shard()
	tab.ahead(0, 4<<20)
	for i := range int64(4) {
		s.check(t, tab, i<<20, 1000)
	}
	eventually(t, "there is room again", func() bool { return tab.ahead(8<<20, 4<<20) })
	s.check(t, tab, 8<<20, 4<<20)
	if got := s.traffic().Bytes; got != 8<<20 {
		t.Errorf("transferred %d bytes", got)
	}
}
