package fs

import (
	"fmt"
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
	v := recover()
	if v == nil {
		return
	}
	f.counters.panics.Add(1)
	f.log.Error("panic", slog.String("in", where), slog.Any("value", v), slog.String("stack", string(debug.Stack())))
	*err = &PanicError{Where: where, Value: v}
}
