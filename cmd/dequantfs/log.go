package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// peopleHandler writes log records for people: "dequantfs: warning: …, key value".
type peopleHandler struct {
	mu    *sync.Mutex
	w     io.Writer
	level slog.Leveler
	attrs []slog.Attr
}

func newPeopleHandler(w io.Writer, level slog.Leveler) slog.Handler {
	return &peopleHandler{mu: new(sync.Mutex), w: w, level: level}
}

func (h *peopleHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.level.Level()
}

func (h *peopleHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("dequantfs: " + levelPrefix(r.Level) + r.Message)
	attr := func(a slog.Attr) bool {
		fmt.Fprintf(&b, ", %s %v", a.Key, a.Value)
		return true
	}
	for _, a := range h.attrs {
		attr(a)
	}
	r.Attrs(attr)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintln(h.w, oneLine(b.String()))
	return err
}

func levelPrefix(l slog.Level) string {
	if l < slog.LevelWarn {
		return ""
	}
	if l < slog.LevelError {
		return "warning: "
	}
	return "error: "
}

func (h *peopleHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &peopleHandler{h.mu, h.w, h.level, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup ignores the group: nothing here uses groups.
func (h *peopleHandler) WithGroup(string) slog.Handler { return h }

// lateHandler passes records to a handler that can be replaced. A mount logs to the terminal until
// it is in the background, and then to its log.
type lateHandler struct {
	current *atomic.Pointer[slog.Handler]
	attrs   []slog.Attr
}

func newLateHandler(h slog.Handler) *lateHandler {
	l := &lateHandler{current: new(atomic.Pointer[slog.Handler])}
	l.current.Store(&h)
	return l
}

// become passes records to h from now on.
func (l *lateHandler) become(h slog.Handler) { l.current.Store(&h) }

func (l *lateHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return (*l.current.Load()).Enabled(ctx, level)
}

func (l *lateHandler) Handle(ctx context.Context, r slog.Record) error {
	h := *l.current.Load()
	if len(l.attrs) > 0 {
		h = h.WithAttrs(l.attrs)
	}
	return h.Handle(ctx, r)
}

func (l *lateHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lateHandler{l.current, append(l.attrs[:len(l.attrs):len(l.attrs)], attrs...)}
}

// WithGroup ignores the group: nothing here uses groups.
func (l *lateHandler) WithGroup(string) slog.Handler { return l }

// logFlags are the flags for the place, the format and the level of a log.
type logFlags struct {
	file    string
	format  string
	verbose bool
	quiet   bool
}

// check finds mistakes in the flags.
func (l *logFlags) check() error {
	if l.quiet && l.verbose {
		return usageError{errors.New("--quiet and --verbose exclude each other")}
	}
	if l.format == "" {
		return nil
	}
	return oneOf("log-format", l.format, "text", "json")
}

func (l *logFlags) level() slog.Level {
	if l.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// people returns the handler for the user of the command, who may choose a format and fewer lines.
func (l *logFlags) people(w io.Writer) slog.Handler {
	level := l.level()
	if l.quiet {
		level = slog.LevelWarn
	}
	if l.format == "" {
		return newPeopleHandler(w, level)
	}
	return l.handler(w, level)
}

// lasting returns the handler for a log that is read later. Its lines have times.
func (l *logFlags) lasting(w io.Writer) slog.Handler { return l.handler(w, l.level()) }

func (l *logFlags) handler(w io.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if l.format == "json" {
		return slog.NewJSONHandler(jsonWriter{w}, o)
	}
	return slog.NewTextHandler(jsonWriter{w}, o)
}
