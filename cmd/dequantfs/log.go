package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
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

func (h *peopleHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

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
