package adapter

import (
	"errors"
	"slices"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// recentUnits keeps the units used last, so that reading a transposed tensor piece
// by piece does not transpose it anew for each. A row of a native tensor is made of
// two units, gate and up; keeping four lets two readers pass.
type recentUnits struct {
	expr.Alone
	mu    sync.Mutex
	units []*recentUnit // the last used at the end
}

const recentMost = 4

// recentUnit is one unit, filled once.
type recentUnit struct {
	key   expr.UnitKey
	fill  sync.Once
	bytes []byte
	err   error
}

// Bytes gives the unit's bytes.
func (u *recentUnit) Bytes() []byte { return u.bytes }

// Release does nothing: units not kept any more are garbage.
func (u *recentUnit) Release() {}

// errPanicked is the error of a fill that did not end. Others may wait for it.
var errPanicked = errors.New("computing this part panicked")

// Unit gives a filled unit. A fill that failed or panicked is not kept. Fills are not cancelled,
// since others may wait for them.
func (r *recentUnits) Unit(u *expr.Unit) (expr.Entry, error) {
	e := r.entry(u.Key())
	defer func() {
		if e.err != nil {
			r.forget(e)
		}
	}()
	e.fill.Do(func() {
		e.err = errPanicked
		b := make([]byte, u.Size())
		if e.err = u.Fill(nil, b); e.err == nil {
			e.bytes = b
		}
	})
	if e.err != nil {
		return nil, e.err
	}
	return e, nil
}

// entry finds a unit or makes room for it.
func (r *recentUnits) entry(k expr.UnitKey) *recentUnit {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &recentUnit{key: k}
	if i := slices.IndexFunc(r.units, func(o *recentUnit) bool { return o.key == k }); i >= 0 {
		e = r.units[i]
		r.units = slices.Delete(r.units, i, i+1)
	} else if len(r.units) == recentMost {
		r.units = slices.Delete(r.units, 0, 1)
	}
	r.units = append(r.units, e)
	return e
}

func (r *recentUnits) forget(e *recentUnit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.units = slices.DeleteFunc(r.units, func(o *recentUnit) bool { return o == e })
}
