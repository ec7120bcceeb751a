package expr

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// Input is how source bytes reach a recipe. It is a part of the environments of reads and fills.
type Input interface {
	// Err is not nil once the read or the fill has been cancelled.
	Err() error

	// ReadAt reads source bytes like f.ReadAt.
	ReadAt(f File, p []byte, off int64) (int, error)

	// Lend lends source bytes in memory of its own: those of [off, off+n) from off on, in whole
	// rows of width bytes. The recipe must release the entry. If the entry is nil, nothing is
	// lent; skip then is after how many bytes, which have to be read, it is worth asking again.
	Lend(f File, off int64, n, width int) (p []byte, e Entry, skip int)
}

// Env is the environment of a read. It must be safe for concurrent use if the read is split.
type Env interface {
	Input

	// Unit gives a filled unit, which the recipe must release. It gives nil if units are not kept;
	// the recipe then reads what it needs of the unit.
	Unit(u *Unit) (Entry, error)

	// Lost counts values that a narrower dtype could not hold: those that became the largest code
	// when they were quantized, and infinities that were written as F16. It counts evaluations,
	// so an element that is read twice counts twice.
	Lost(saturated, infinite int)
}

// FillEnv is the environment of a fill. It must be safe for concurrent use.
type FillEnv interface {
	Input

	// Together runs the functions, perhaps at the same time. It returns the first error once all
	// have ended.
	Together(fns ...func() error) error
}

// Entry is bytes that are lent, or one filled unit. It is pinned until Release.
type Entry interface {
	Bytes() []byte // not to be changed, valid until Release
	Release()
}

// Alone reads source files directly and keeps nothing. It is the environment of reads and fills
// that have no other one. The zero value is never cancelled.
type Alone struct {
	Context   context.Context
	Saturated atomic.Int64 // see Env.Lost
	Infinite  atomic.Int64
}

var (
	_ Env     = (*Alone)(nil)
	_ FillEnv = (*Alone)(nil)
)

// Err is the error of the context.
func (a *Alone) Err() error {
	return a.context().Err()
}

// ReadAt reads the file.
func (a *Alone) ReadAt(f File, p []byte, off int64) (int, error) {
	return f.ReadAt(a.context(), p, off)
}

func (a *Alone) context() context.Context {
	if a.Context == nil {
		return context.Background()
	}
	return a.Context
}

// Lend lends nothing.
func (a *Alone) Lend(_ File, _ int64, n, _ int) ([]byte, Entry, int) { return nil, nil, n }

// Unit keeps no units.
func (a *Alone) Unit(*Unit) (Entry, error) { return nil, nil }

// Lost counts values.
func (a *Alone) Lost(saturated, infinite int) {
	if saturated > 0 {
		a.Saturated.Add(int64(saturated))
	}
	if infinite > 0 {
		a.Infinite.Add(int64(infinite))
	}
}

// Together runs the functions one after the other. It stops at the first error.
func (a *Alone) Together(fns ...func() error) error {
	for _, fn := range fns {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// alone is the environment of reads and fills that have none.
var alone Alone

func orAlone(env Env) Env {
	if env == nil {
		return &alone
	}
	return env
}

// inside is the environment of reads that a fill makes. It reads as the fill does. It lends and
// keeps nothing, since a fill reads everything once.
type inside struct{ FillEnv }

func (i *inside) Lend(_ File, _ int64, n, _ int) ([]byte, Entry, int) { return nil, nil, n }
func (i *inside) Unit(*Unit) (Entry, error)                           { return nil, nil }
func (i *inside) Lost(int, int)                                       {}

// read fills p from the file of a source. A short read is an error.
func read(in Input, src *Source, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	if err := in.Err(); err != nil {
		return err
	}
	n, err := in.ReadAt(src.File, p, off)
	if n == len(p) && (err == nil || err == io.EOF) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: %s: read %d of %d bytes at offset %d: %w",
		src.File.Name(), src.Key, n, len(p), off, err)
}

// lent asks the environment to lend bytes, unless the read is cancelled.
func lent(in Input, f File, off int64, n, width int) (p []byte, e Entry, skip int) {
	if width == 0 || in.Err() != nil {
		return nil, nil, n
	}
	return in.Lend(f, off, n, width)
}
