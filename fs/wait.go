package fs

import (
	"context"
	"time"
)

// lookAgain is how often a waiting read asks whether its reader is still there.
const lookAgain = 100 * time.Millisecond

// mortal is a context that can tell whether whoever waits is dying, though nobody has cancelled it (see request).
type mortal interface{ dying() bool }

// wait waits for what, unless the reader gives up or the filesystem is closed.
func (f *FS) wait(ctx context.Context, what <-chan struct{}) error {
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
		case <-f.ctx.Done():
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
		case <-f.ctx.Done():
			return ErrClosed
		case <-tick.C:
			if m.dying() {
				return context.Canceled
			}
		}
	}
}
