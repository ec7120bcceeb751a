// Package units keeps what recipes need of a source: the tensor cache, scale grids, and source
// bytes that were read ahead. It knows recipes and source files, but not trees, sessions or mounts.
//
// Start with [New]. Each read of a virtual file takes a [Read] from the [Cache], names the units
// that it needs ([Read.Want]), waits for them ([Read.Acquire]) and evaluates its recipes, for which
// the Read is the environment. [Read.End] lets go of everything.
//
// The package asks its caller back through one interface, [File]: which recipe fills which bytes
// of a virtual file, and how far a stream in it has come.
//
// # What is kept
//
//   - Units of the tensor cache: matrices, transposed in their source precision. Fills and
//     eviction are described at [Cache].
//   - Scale grids, stored and computed ones. They are small and have room of their own.
//   - Blocks: source bytes that were read ahead of streams of row-contiguous recipes.
//
// # Source files
//
// All source bytes are read here: counted, watched for stalls, and past the system's page cache
// where that is better (see [SourceCache]). A file that does not answer only holds up its own
// readers.
package units

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// Options of a cache.
type Options struct {
	Limits      Limits
	Workers     int          // goroutines that one read may use
	SourceCache SourceCache  // how the system's page cache is used for source bytes
	Logger      *slog.Logger // required
	Slow        *slog.Logger // gets lines about what takes longer than SlowAfter; required
	SlowAfter   time.Duration
	Tuning      Tuning
}

// Tuning changes policies that have good defaults. Zero values are the defaults.
type Tuning struct {
	Grace     time.Duration // how long a unit is kept for a stream that does not go on
	Patience  time.Duration // how long a reader waits before it takes units from streams that do
	KeepSpent int64         // bytes of units that are kept after they were read to their end
	Block     int64         // the size of a block, at most BufferSize less two pages
	MinBlock  int64         // smaller ranges are not read ahead
	Check     bool          // check the account at every change; it panics if it is wrong
}

// Limits bound what is kept and what is under way. The zero value keeps and computes nothing.
type Limits struct {
	Units    int64 // bytes of units in the tensor cache
	Request  int64 // bytes of units that one request may need at once; 0: not known
	Scales   int64 // bytes of stored scale grids
	Computed int64 // bytes of computed scale grids
	Blocks   int   // blocks that are read ahead, each of BufferSize bytes
	Strips   int   // strips of units that are computed at once
}

// Run is a read's place among the reads of its file.
type Run struct {
	Clock      int64 // its number, see Cache.Tick
	Slot       int   // its stream
	Start      int64 // the number of the first read of that stream
	Sequential bool  // it goes on where the stream was
	Leads      bool  // it is the furthest read of a stream that has been one for some time
}

// File is a virtual file, as far as the cache has to know it. It is all that the cache asks of its
// caller.
type File interface {
	// Size is the length of the file.
	Size() int64

	// Recipe gives the recipe of the byte at off, and the range that it fills. The recipe is nil
	// if the byte is not computed.
	Recipe(off int64) (n expr.Node, begin, end int64)

	// Beyond reports whether the stream of a run has come as far as off, or is forgotten.
	Beyond(r Run, off int64) bool
}

// ErrClosed is the error of reads after Close.
var ErrClosed = errors.New("filesystem is closed")

// guard turns panics into errors and says what is slow.
type guard struct {
	log, slow *slog.Logger
	slowAfter time.Duration
	panics    atomic.Int64
}

// slowly logs something that took long.
func (g *guard) slowly(msg string, attrs ...slog.Attr) {
	g.slow.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}

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

// New makes a cache.
func New(o Options) *Cache {
	c := newCache(o.Tuning)
	c.guard = guard{log: o.Logger, slow: o.Slow, slowAfter: o.SlowAfter}
	c.workers = o.Workers
	c.files.policy = o.SourceCache
	c.strips.files = &c.files
	c.filler = filler{ctx: c.ctx, guard: &c.guard, files: &c.files, strips: &c.strips}
	c.scales = newScaleCache()
	c.computed = newComputed(&c.filler)
	c.blocks = newBlocks(c, o.Tuning)
	c.SetLimits(o.Limits)
	return c
}

// SetLimits changes the limits. What is beyond them is thrown out.
func (c *Cache) SetLimits(l Limits) {
	c.files.buffers.setMost(min(int64(l.Strips)*BufferSize, buffersKept(c.workers)))
	c.strips.setMost(l.Strips)
	c.blocks.setMax(l.Blocks)
	c.scales.setMax(l.Scales)
	c.computed.setMax(l.Computed)
	c.setBudget(l.Units, l.Request)
}

// Tick counts a read and gives its number.
func (c *Cache) Tick() int64 { return c.clock.Add(1) }

// Step gives the most bytes of units that one read may need. check reports whether a read has to
// be checked against it.
func (c *Cache) Step() (n int64, check bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.budget, c.request), c.request > 0 && c.budget < 8*c.request
}

// Close fails all reads that wait, with ErrClosed, and waits for what runs. It frees all memory
// that no read holds.
func (c *Cache) Close() {
	c.stop()
	c.closeUnits()
	c.computed.close()
	c.blocks.close()
	c.files.buffers.free()
}

// Memory is how many bytes of memory a unit of n bytes takes.
func Memory(n int64) int64 { return bufferSize(n) }
