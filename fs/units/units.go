// Package units caches data of a source for recipes: units of tensors, scale grids, and source
// bytes that were read ahead. It knows recipes and source files, but not trees, sessions or mounts.
//
// Start with [New]. Each read of a virtual file takes a [Read] from the [Cache]. It names the units
// that it needs ([Read.Want]) and waits for them ([Read.Acquire]). Then it evaluates its recipes
// with the Read as their environment. [Read.End] releases everything.
//
// The package calls its caller back through one interface, [File]. It asks which recipe fills which
// bytes of a virtual file, and how far a stream has come.
//
// # What is kept
//
//   - Units of the tensor cache: matrices, transposed in their source precision. Fills and
//     eviction are described at [Cache].
//   - Scale grids, stored and computed ones. They have room of their own.
//   - Blocks: source bytes that were read ahead of streams of row-contiguous recipes.
//
// # Source files
//
// All source bytes are read here. The reads are counted and watched for stalls. They go past the
// system's page cache if that is better (see [SourceCache]). A file that does not answer delays
// only its own readers.
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
	Slow        *slog.Logger // for work that takes longer than SlowAfter; required
	SlowAfter   time.Duration
	Tuning      Tuning
}

// Tuning overrides policies. Zero values are the defaults.
type Tuning struct {
	Grace     time.Duration // how long a unit is kept for a stream that has paused
	Patience  time.Duration // how long a reader waits before it evicts units of active streams
	KeepSpent int64         // bytes of units kept after they were read to their end
	Block     int64         // the size of a block, at most BufferSize less two pages
	MinBlock  int64         // smaller ranges are not read ahead
	Check     bool          // check the account at every change; it panics if it is wrong
}

// Limits bound the data that is kept and the work at once. The zero value keeps and computes
// nothing.
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
	Start      int64 // the number of its stream's first read
	Sequential bool  // it continues its stream
	Leads      bool  // it is the furthest read of an established stream
}

// File is a virtual file. The cache needs nothing else from its caller.
type File interface {
	// Size is the length of the file.
	Size() int64

	// Recipe returns the recipe of the byte at off, and the range that it fills. The recipe is nil
	// if the byte is not computed.
	Recipe(off int64) (n expr.Node, begin, end int64)

	// Beyond reports whether the stream of a run has come as far as off, or is forgotten.
	Beyond(r Run, off int64) bool
}

// ErrNoRoom is the error of modest reads whose units do not fit into the cache now.
var ErrNoRoom = errors.New("no room in the cache")

// ErrClosed is the error of reads after Close.
var ErrClosed = errors.New("filesystem is closed")

// guard turns panics into errors and logs slow work.
type guard struct {
	log, slow *slog.Logger
	slowAfter time.Duration
	panics    atomic.Int64
}

// slowly logs slow work.
func (g *guard) slowly(msg string, attrs ...slog.Attr) {
	g.slow.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}

// PanicError is the error for readers if a goroutine that worked for them panicked.
type PanicError struct {
	Where string
	Value any
}

// Error names the place and the value of the panic.
func (e *PanicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.Where, e.Value) }

// recover turns a panic into an error and logs its stack. It must be deferred.
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

// Recover turns a panic of the caller into a PanicError, counts it and logs its stack. It must be
// deferred.
func (c *Cache) Recover(where string, err *error) {
	if v := recover(); v != nil {
		*err = c.Panicked(where, v)
	}
}

// Panicked does the same for a panic that the caller has recovered.
func (c *Cache) Panicked(where string, v any) error { return c.guard.panicked(where, v) }

// New makes a cache.
func New(o Options) *Cache {
	c := newCache(o.Tuning)
	c.guard = guard{log: o.Logger, slow: o.Slow, slowAfter: o.SlowAfter}
	c.workers = o.Workers
	c.files.ctx, c.files.policy = c.ctx, o.SourceCache
	c.strips.files = &c.files
	c.filler = filler{ctx: c.ctx, guard: &c.guard, files: &c.files, strips: &c.strips}
	c.scales = newScaleCache()
	c.computed = newComputed(&c.filler)
	c.grids = newComputed(&c.filler)
	c.blocks = newBlocks(c, o.Tuning)
	c.SetLimits(o.Limits)
	return c
}

// SetLimits changes the limits, and evicts what is beyond them.
func (c *Cache) SetLimits(l Limits) {
	c.files.buffers.setMost(min(int64(l.Strips)*BufferSize, buffersKept(c.workers)))
	c.strips.setMost(l.Strips)
	c.blocks.setMax(l.Blocks)
	c.scales.setMax(l.Scales / 4)
	c.grids.setMax(l.Scales - l.Scales/4)
	c.computed.setMax(l.Computed)
	c.setBudget(l.Units, l.Request)
}

// Tick counts a read and returns its number.
func (c *Cache) Tick() int64 { return c.clock.Add(1) }

// Step returns the most bytes of units that one read may need. check reports whether reads have to
// be checked against n.
func (c *Cache) Step() (n int64, check bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.budget, c.request), c.request > 0 && c.budget < 8*c.request
}

// Close fails all waiting reads with ErrClosed, and waits for running work. It frees all memory
// that no read holds.
func (c *Cache) Close() {
	c.stop()
	c.closeUnits()
	c.computed.close()
	c.grids.close()
	c.blocks.close()
	c.files.buffers.free()
}

// Memory returns how many bytes of memory a unit of n bytes takes.
func Memory(n int64) int64 { return bufferSize(n) }
