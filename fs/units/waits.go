package units

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// lookAgain is how often a waiting read asks whether its reader has given up. A fill that waits for
// its turn asks as often whether a file has stalled.
const lookAgain = 100 * time.Millisecond

// wait waits until the channel is closed, the reader gives up, or the cache is closed.
func wait(ctx, cache context.Context, what <-chan struct{}) error {
	select {
	case <-what:
		return nil
	default:
	}
	if ctx.Done() == nil && ctx != context.Background() {
		return waitAndAsk(ctx, cache, what)
	}
	select {
	case <-what:
		return nil
	case <-cache.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitAndAsk waits with a context that has no Done channel. It polls the context instead.
func waitAndAsk(ctx, cache context.Context, what <-chan struct{}) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-what:
			return nil
		case <-cache.Done():
			return ErrClosed
		case <-tick.C:
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

// reason is a reason for which a read, or the computing of a unit, waits.
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
	"nothing: it computes, or has no processor", "room in the tensor cache",
	"a unit that is being computed", "source bytes that are being read ahead",
	"its turn to be computed", "the source",
}

// waits records how long a read, or the computing of a unit, has waited for each reason. Its parts
// may wait at the same time.
type waits struct {
	of  [reasons]tally
	now atomic.Int32 // the latest reason
}

// tally sums up the waits for one reason: their time together, their number, and the longest.
type tally struct{ sum, times, most atomic.Int64 }

// begin records that a wait begins, and returns the time.
func (w *waits) begin(r reason) time.Time {
	w.now.Store(int32(r))
	return time.Now()
}

// end records that a wait has ended.
func (w *waits) end(r reason, begun time.Time) {
	w.now.CompareAndSwap(int32(r), int32(forNothing))
	took := int64(time.Since(begun))
	of := &w.of[r]
	of.sum.Add(took)
	of.times.Add(1)
	most := of.most.Load()
	for took > most && !of.most.CompareAndSwap(most, took) {
		most = of.most.Load()
	}
}

// reset clears all counts.
func (w *waits) reset() {
	for i := range w.of {
		of := &w.of[i]
		of.sum.Store(0)
		of.times.Store(0)
		of.most.Store(0)
	}
	w.now.Store(int32(forNothing))
}

// String lists the reasons and the times waited.
func (w *waits) String() string {
	var all []string
	for r := range w.of {
		of := &w.of[r]
		if n := of.times.Load(); n > 0 {
			all = append(all, fmt.Sprintf("%s %v (%d times, at most %v)",
				reasonNames[r], short(of.sum.Load()), n, short(of.most.Load())))
		}
	}
	if all == nil {
		return reasonNames[forNothing]
	}
	return strings.Join(all, ", ")
}

func short(ns int64) time.Duration { return time.Duration(ns).Round(time.Millisecond) }
