package fs

import (
	"context"
	"fmt"
	"math/bits"
	"testing"
	"time"
)

// together makes it look as if so many streams were being read, until the test ends. The first
// streams of the test itself have other places.
func together(f *FS, streams int) {
	for i := range streams {
		f.crowd.touch(int64(len(f.crowd.seen)-1-i), time.Now().Add(time.Hour))
	}
}

func TestAStreamIsCountedUntilItPauses(t *testing.T) {
	var c crowd
	now := time.Now()
	for i := range int64(3) {
		c.touch(i, now)
		c.touch(i, now.Add(time.Duration(i)*pause))
	}
	for after, want := range map[time.Duration]int64{0: 3, pause: 3, pause + 1: 2, 2*pause + 1: 1,
		3*pause + 1: 0} {
		if n := int64(bits.OnesCount64(c.lately(now.Add(after)))); n != want {
			t.Errorf("%d after %v, want %d", n, after, want)
		}
	}
}

// A read is split over the cores that no other stream uses.
func TestAReadIsSplitOverIdleCores(t *testing.T) {
	for streams, want := range map[int]int{0: 5, 1: 4, 2: 3, 4: 1, 9: 1} {
		f, _ := rowsFS(t, 128, 16384, Options{Workers: 4})
		together(f, streams)
		v := f.find(singleName).content.(*file)
		s := f.session(context.Background(), v, 0, 1<<20)
		if n := len(s.split(make([]byte, 1<<20))); n != want {
			t.Errorf("beside %d streams: %d pieces, want %d", streams, n, want)
		}
		s.end(true)
	}
}

// The kernel reads a stream ahead by many requests at once. Streams that wait are counted, too.
func TestRequestsOfOneStreamAreOneReader(t *testing.T) {
	for streams, want := range map[int64]bool{1: true, 2: true, 3: true, 4: true, 5: false} {
		f, _ := rowsFS(t, 4096, 16384, Options{Workers: 4})
		v := f.find(singleName).content.(*file)
		var waiting []*session
		for i := range 8 * streams {
			off := i%streams*(16<<20) + i/streams<<20
			waiting = append(waiting, f.session(context.Background(), v, off, 1<<20))
		}
		f.crowd = crowd{}
		if got := f.spare(); got != want {
			t.Errorf("%d streams, 4 cores: %v", streams, got)
		}
		for _, s := range waiting {
			s.end(true)
		}
	}
}

func TestUnitsAreFetchedAheadWhileCoresAreIdle(t *testing.T) {
	for _, streams := range []int{0, 1, 2, 3, 8} {
		t.Run(fmt.Sprint(streams), func(t *testing.T) {
			f, source := layerFS(t, deepSeek, Options{CacheSize: smallBudget, Workers: 2})
			together(f, streams)
			readShard(t, f)
			wantOnce(t, f, source)
			if n := f.Stats().Prefetches; (n > 0) != (streams < 2) {
				t.Errorf("%d units were fetched ahead", n)
			}
		})
	}
}
