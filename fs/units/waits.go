package units

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// lookAgain is how often a waiting read asks whether its reader is still there.
const lookAgain = 100 * time.Millisecond

// mortal is a context that can tell whether whoever waits is dying, though nobody has cancelled it (see request).
type mortal interface{ dying() bool }

// wait waits for what, unless the reader gives up or the filesystem is closed.
func (c *Cache) wait(ctx context.Context, what <-chan struct{}) error {
	select {
	case <-what:
		return nil
	default:
	}
	m, ok := ctx.(mortal)
	if !ok {
		select {
		case <-what:
			return nil
		case <-c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-what:
			return nil
		case <-c.ctx.Done():
			return ErrClosed
		case <-tick.C:
			if m.dying() {
				return context.Canceled
			}
		}
	}
}

// reason is what a read, or the computing of a unit, waits for.
type reason int32

const (
	forNothing reason = iota
	forRoom
	forUnit
	forAhead
	forTurn
	forSource
	reasons
)

var reasonNames = [reasons]string{
	"nothing: it computes, or has no processor", "room in the tensor cache", "a unit that is being computed",
	"source bytes that are being read ahead", "its turn to be computed", "the source",
}

// waits is how long a read, or the computing of a unit, has waited for what. Its parts may wait at
// the same time.
type waits struct {
	of  [reasons]wait
	now atomic.Int32 // the reason that came last
}

// wait is how long it was for one reason, how often, and how long at most.
type wait struct{ sum, times, most atomic.Int64 }

// begin notes that a wait begins, and gives the time.
func (w *waits) begin(r reason) time.Time {
	w.now.Store(int32(r))
	return time.Now()
}

// end notes that a wait has ended.
func (w *waits) end(r reason, begun time.Time) {
	w.now.CompareAndSwap(int32(r), int32(forNothing))
	took := int64(time.Since(begun))
	of := &w.of[r]
	of.sum.Add(took)
	of.times.Add(1)
	for most := of.most.Load(); took > most && !of.most.CompareAndSwap(most, took); most = of.most.Load() {
	}
}

// reset forgets all.
func (w *waits) reset() {
	for i := range w.of {
		of := &w.of[i]
		of.sum.Store(0)
		of.times.Store(0)
		of.most.Store(0)
	}
	w.now.Store(int32(forNothing))
}

// String names what was waited for.
func (w *waits) String() string {
	var all []string
	for r := range w.of {
		of := &w.of[r]
		if n := of.times.Load(); n > 0 {
			all = append(all, fmt.Sprintf("%s %v (%d times, at most %v)", reasonNames[r], short(of.sum.Load()), n, short(of.most.Load())))
		}
	}
	if all == nil {
		return reasonNames[forNothing]
	}
	return strings.Join(all, ", ")
}

func short(ns int64) time.Duration { return time.Duration(ns).Round(time.Millisecond) }
