package fs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// slowAfter is how long a read, or the computing of a unit, may take before the log says what it
// waits for.
const slowAfter = 2 * time.Second

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

// slowLog says what is slow, but not too often.
type slowLog struct {
	after time.Duration

	mu      sync.Mutex
	minute  int64
	lines   int // of this minute
	dropped int
}

// slowLines is how many lines of a minute say what is slow.
const slowLines = 20

// slow logs something that takes, or has taken, long.
func (f *FS) slow(msg string, attrs ...slog.Attr) {
	if dropped, ok := f.slowly.may(time.Now()); ok {
		if dropped > 0 {
			attrs = append(attrs, slog.Int("not_logged", dropped))
		}
		f.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
	}
}

// may says whether there is room for another line, and how many had none before it.
func (l *slowLog) may(now time.Time) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if minute := now.Unix() / 60; minute != l.minute {
		l.minute, l.lines = minute, 0
	}
	if l.lines == slowLines {
		l.dropped++
		return 0, false
	}
	l.lines++
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

// watchSlow logs reads that are taking long until the filesystem is closed: some may never end.
func (f *FS) watchSlow() {
	tick := time.NewTicker(f.slowly.after / 2)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
		}
		for _, attrs := range f.live.slow(f.slowly.after) {
			f.slow("a read is taking long", attrs...)
		}
	}
}

// slow describes the sessions that have been under way for longer than after, each of them once.
func (l *live) slow(after time.Duration) (all [][]slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := l.head; s != nil; s = s.next {
		if took := time.Since(s.began); took > after && !s.slow {
			s.slow = true
			now := reasonNames[s.waits.now.Load()]
			all = append(all, append(s.about(took), slog.String("waits_now_for", now)))
		}
	}
	return all
}

// about says what a session reads, and what it has waited for.
func (s *session) about(took time.Duration) []slog.Attr {
	return []slog.Attr{
		slog.String("what", s.file.at(s.off)), slog.Int64("offset", s.off), slog.Int64("bytes", s.n),
		slog.Duration("after", took.Round(time.Millisecond)), slog.String("waited_for", s.waits.String()),
	}
}
