package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

func TestSpansAreWhereAUnitIsNeeded(t *testing.T) {
	for _, x := range []expertShape{{experts: 5, hidden: 320, intermediate: 300}, {experts: 6, hidden: 512, intermediate: 512}, {experts: 2, hidden: 2048, intermediate: 1024}} {
		f, _ := layerFS(t, x, Options{})
		v := f.find(singleName).content.(*file)
		row, matrix := x.intermediate*2, x.hidden*x.intermediate*2
		for e := range x.experts {
			// In gate_up the two projections take turns in each row; gate's last byte stands one row before up's.
			begin := v.ends[1] + e*2*matrix
			for _, at := range []int64{begin, begin + matrix, begin + 2*matrix - 2*row} {
				var units []*expr.Unit
				v.units(at, 2*row, func(u *expr.Unit) bool { units = append(units, u); return true })
				for i, u := range units[:min(2, len(units))] {
					want := span{v, begin + int64(i)*row, begin + 2*matrix - int64(1-i)*row}
					if got := spanOf(v, u.Key(), at, 2*row); got != want {
						t.Errorf("%v: expert %d, unit %d from %d: [%d, %d), want [%d, %d)", x, e, i, at, got.lo, got.hi, want.lo, want.hi)
					}
				}
			}
		}
	}
}

// meeting is a recipe where those who look for a unit wait for each other.
type meeting struct {
	expr.Node
	arrived atomic.Int64
	all     chan struct{}
}

func (m *meeting) Units(int64, int64, func(*expr.Unit) bool) bool {
	if m.arrived.Add(1) == 2 {
		close(m.all)
	}
	<-m.all
	return true
}

// Both find that nobody knows yet where the unit is needed, and both look; what each has read counts all the same.
func TestReadsThatEndAtOnceBothCount(t *testing.T) {
	c, f := testCache(t, 1<<20)
	tensor := &segment{node: &meeting{all: make(chan struct{})}}
	tensor.kind.Store(uint32(kindTranspose))
	f.segments, f.ends = append(f.segments, tensor), []int64{0, 1000}
	u := fakeUnits(1, 500)[0]
	var wg sync.WaitGroup
	for _, off := range []int64{0, 500} {
		wg.Go(func() {
			if err := use(context.Background(), f, off, 500, u); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[u.Key()]; e.read != 1000 || !e.isSpent() {
		t.Errorf("%d bytes of 1000 were read", e.read)
	}
}
