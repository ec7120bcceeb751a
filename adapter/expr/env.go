package expr

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// Env is what evaluation may use. The zero value (and nil) is valid: no cache, no
// parallelism, never cancelled.
type Env struct {
	Context context.Context
	Cache   Cache

	// Go runs the functions, perhaps at the same time, and returns the first error once
	// all have ended. nil: one after the other in the calling goroutine.
	Go func(fns ...func() error) error

	// ReadAt is how source bytes are read. nil: f.ReadAt.
	ReadAt func(f File, p []byte, off int64) (int, error)

	// Lend, if there is one, lends source bytes that it has, or reads, in memory of its own: those of [off, off+n) from off on,
	// in whole rows of width bytes, and the entry to be released. Or it lends nothing, and says after how many bytes, which
	// have to be read, it is worth asking again.
	Lend func(f File, off int64, n, width int) (p []byte, e Entry, skip int)

	// Counters, if there are any, count values that lost their magnitude.
	Counters *Counters
}

// Counters count values that a narrower dtype could not hold. They count evaluations, so an
// element that is read twice counts twice.
type Counters struct {
	Saturated atomic.Int64 // values that became the largest code when they were quantized
	Infinite  atomic.Int64 // infinities that were written as F16, most of them values too large for it
}

// Cache keeps units. Get returns a filled entry, which the caller must Release.
type Cache interface {
	Get(ctx context.Context, u *Unit) (Entry, error)
}

// Entry is one filled unit, pinned until Release.
type Entry interface {
	Bytes() []byte // not to be changed, valid until Release
	Release()
}

// context gives the context of evaluation, never nil.
func (env *Env) context() context.Context {
	if env == nil || env.Context == nil {
		return context.Background()
	}
	return env.Context
}

// cache gives the cache or nil.
func (env *Env) cache() Cache {
	if env == nil {
		return nil
	}
	return env.Cache
}

// together runs the functions by env.Go.
func (env *Env) together(fns ...func() error) error {
	if env != nil && env.Go != nil {
		return env.Go(fns...)
	}
	for _, fn := range fns {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// read fills p from the file of a source; a short read is an error.
func (env *Env) read(src *Source, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	if err := env.context().Err(); err != nil {
		return err
	}
	n, err := env.readAt(src.File, p, off)
	if n == len(p) && (err == nil || err == io.EOF) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: %s: read %d of %d bytes at offset %d: %w", src.File.Name(), src.Key, n, len(p), off, err)
}

// lent asks Lend.
func (env *Env) lent(f File, off int64, n, width int) (p []byte, e Entry, skip int) {
	if env == nil || env.Lend == nil || width == 0 || env.context().Err() != nil {
		return nil, nil, n
	}
	return env.Lend(f, off, n, width)
}

func (env *Env) readAt(f File, p []byte, off int64) (int, error) {
	if env == nil || env.ReadAt == nil {
		return f.ReadAt(env.context(), p, off)
	}
	return env.ReadAt(f, p, off)
}

// saturated counts n values.
func (env *Env) saturated(n int) {
	if n > 0 && env != nil && env.Counters != nil {
		env.Counters.Saturated.Add(int64(n))
	}
}
