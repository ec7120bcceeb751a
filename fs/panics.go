package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
)

// PanicError is what readers get of a panic in a goroutine that worked for them.
type PanicError struct {
	Where string
	Value any
}

func (e *PanicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.Where, e.Value) }

// recover, deferred, turns a panic into an error and logs its stack.
func (f *FS) recover(where string, err *error) {
	if v := recover(); v != nil {
		f.panicked(where, v, err)
	}
}

func (f *FS) panicked(where string, v any, err *error) {
	f.counters.panics.Add(1)
	f.log.Error("panic", slog.String("in", where), slog.Any("value", v), slog.String("stack", string(debug.Stack())))
	*err = &PanicError{Where: where, Value: v}
}

// maxCauses bounds what logOnce remembers.
const maxCauses = 1000

// logOnce logs an error about something unless one of the same cause has been logged already; offsets and the like are
// no part of the cause.
func (f *FS) logOnce(level slog.Level, msg string, err error, attrs ...slog.Attr) {
	cause := err
	for next := cause; next != nil; next = errors.Unwrap(next) {
		cause = next
	}
	if _, seen := f.logged.LoadOrStore(fmt.Sprint(attrs, cause), true); seen {
		return
	}
	if f.causes.Add(1) > maxCauses {
		f.logged.Clear()
		f.causes.Store(0)
	}
	f.log.LogAttrs(context.Background(), level, msg, append(attrs, slog.Any("error", err))...)
}

// isEnd says whether a read went well, be it up to the end of the file.
func isEnd(err error) bool { return err == nil || err == io.EOF }
