package fs

import (
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
