package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// maxCauses is the most causes that logOnce remembers.
const maxCauses = 1000

// logOnce logs an error unless an error with the same cause was logged before. Offsets and similar
// details are not part of the cause.
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
