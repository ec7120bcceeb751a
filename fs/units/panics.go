package units

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
func (g *guard) recover(where string, err *error) {
	if v := recover(); v != nil {
		*err = g.panicked(where, v)
	}
}

func (g *guard) panicked(where string, v any) error {
	g.panics.Add(1)
	g.log.Error("panic", slog.String("in", where), slog.Any("value", v),
		slog.String("stack", string(debug.Stack())))
	return &PanicError{Where: where, Value: v}
}

// Recover, deferred, turns a panic of the caller into a PanicError. It counts the panic and logs
// its stack.
func (c *Cache) Recover(where string, err *error) {
	if v := recover(); v != nil {
		*err = c.Panicked(where, v)
	}
}

// Panicked does that for a panic that was recovered already.
func (c *Cache) Panicked(where string, v any) error { return c.guard.panicked(where, v) }
