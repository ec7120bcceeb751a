package units

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// gateUp makes the grouped gate and up projections of some experts from BF16 matrices.
func gateUp(t *testing.T, file expr.File, experts, hidden, intermediate int64) expr.Node {
	t.Helper()
	must := func(n expr.Node, err error) expr.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var merged []expr.Node
	for e := range experts {
		var parts [2]expr.Node
		for i := range parts {
			offset := (2*e + int64(i)) * 2 * hidden * intermediate
			src := &expr.Source{Key: fmt.Sprint(offset), File: file, Offset: offset,
				DType: safetensors.BF16, Shape: []int64{intermediate, hidden}}
			parts[i] = must(expr.Transpose(must(expr.Load(src))))
		}
		merged = append(merged, must(expr.Concat(1, parts[0], parts[1])))
	}
	return must(expr.Stack(merged...))
}

func TestSpansAreWhereAUnitIsNeeded(t *testing.T) {
	for _, x := range [][3]int64{{5, 320, 300}, {6, 512, 512}, {2, 2048, 1024}} {
		c, f := testCache(t, 1<<20)
		f.node = gateUp(t, &noFile{name: "s"}, x[0], x[1], x[2])
		f.size = f.node.Size()
		row, matrix := x[2]*2, x[1]*x[2]*2
		for e := range x[0] {
			// In gate_up the two projections alternate in each row. The last byte of gate is one
			// row before that of up.
			begin := e * 2 * matrix
			for _, at := range []int64{begin, begin + matrix, begin + 2*matrix - 2*row} {
				var units []*expr.Unit
				f.node.Units(at, 2*row, func(u *expr.Unit) bool {
					units = append(units, u)
					return true
				})
				r := c.NewRead()
				r.Begin(context.Background(), f, at, 2*row, Run{})
				for i, u := range units[:min(2, len(units))] {
					want := span{f, begin + int64(i)*row, begin + 2*matrix - int64(1-i)*row}
					if got := spanOf(r, u.Key()); got != want {
						t.Errorf("%v: expert %d, unit %d from %d: [%d, %d), want [%d, %d)", x, e, i,
							at, got.lo, got.hi, want.lo, want.hi)
					}
				}
			}
		}
	}
}

// meeting is a recipe in which two searches for a unit wait for each other.
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

// Both reads find the span unknown and search for it. The bytes of both count.
func TestReadsThatEndAtOnceBothCount(t *testing.T) {
	c, f := testCache(t, 1<<20)
	f.node, f.size = &meeting{all: make(chan struct{})}, 1000
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
