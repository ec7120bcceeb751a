package units

import (
	"context"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// until returns the context of a read of a source file. A read over a network also ends when the
// cache is closed, so Close never waits for a server. Local files answer, and the context of a
// reader alone spares them a copy.
func (s *files) until(ctx context.Context, file expr.File) (context.Context, context.CancelFunc) {
	_, local := file.(expr.DirectFile)
	switch {
	case local:
		return ctx, func() {}
	case ctx == context.Background():
		return s.ctx, func() {}
	case ctx.Done() == nil:
		return either{ctx, s.ctx}, func() {}
	}
	joined, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return joined, func() {
		stop()
		cancel()
	}
}

// either is the context of a reader without a Done channel. It also ends with the cache. It has no
// Done channel either, so a waiting read polls Err.
type either struct {
	context.Context
	cache context.Context
}

// Err returns an error if the reader has given up or the cache is closed.
func (e either) Err() error {
	if err := e.cache.Err(); err != nil {
		return err
	}
	return e.Context.Err()
}
