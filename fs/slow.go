package fs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// slowAfter is how long a read or the computing of a unit may take. If it takes longer, the log
// says what it waits for.
const slowAfter = 2 * time.Second

// slowLines is the most lines about slow reads in one minute.
const slowLines = 20

// fewLines is a handler that drops lines beyond slowLines in a minute.
type fewLines struct {
	slog.Handler

	mu      sync.Mutex
	minute  int64
	lines   int // of this minute
	dropped int
}

// Handle logs a line if there is room for it.
func (l *fewLines) Handle(ctx context.Context, r slog.Record) error {
	dropped, ok := l.may(r.Time)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r.AddAttrs(slog.Int("not_logged", dropped))
	}
	return l.Handler.Handle(ctx, r)
}

// may reports whether another line may be logged, and how many were dropped before it.
func (l *fewLines) may(now time.Time) (dropped int, ok bool) {
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

// watchSlow logs reads that are taking long, since some may never end. It runs until the filesystem
// is closed.
func (f *FS) watchSlow() {
	tick := time.NewTicker(f.options.slowAfter / 2)
	defer tick.Stop()
	for {
		select {
		case <-f.closed:
			return
		case <-tick.C:
		}
		for _, attrs := range f.live.slow(f.options.slowAfter) {
			f.sayslow("a read is taking long", attrs...)
		}
	}
}

// slow describes the sessions that have run for longer than after. It describes each only once.
func (l *live) slow(after time.Duration) (all [][]slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := l.head; s != nil; s = s.next {
		if took := time.Since(s.began); took > after && !s.slow {
			s.slow = true
			all = append(all, append(s.about(took), s.read.Waiting()...))
		}
	}
	return all
}

// about returns what a session reads, and for how long.
func (s *session) about(took time.Duration) []slog.Attr {
	return []slog.Attr{
		slog.String("what", s.file.at(s.off)), slog.Int64("offset", s.off),
		slog.Int64("bytes", s.n),
		slog.Duration("after", took.Round(time.Millisecond)),
	}
}

// sayslow logs a slow operation.
func (f *FS) sayslow(msg string, attrs ...slog.Attr) {
	f.slow.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}
