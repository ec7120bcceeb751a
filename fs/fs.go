// Package fs is the virtual filesystem over planned checkpoints: which tensor
// stands in which virtual file, the bytes of those files, the tensor cache, the
// mount and its statistics.
//
// Start with [New], which lays the views of a checkpoint out as a tree. The tree
// can be read in three ways, which all end in the same function and so give the
// same bytes:
//
//   - as an [io/fs.FS] ([FS.Open]); open files are also [io.ReaderAt] and [io.Seeker]
//   - by [FS.ReaderAt], which takes a context
//   - through a mount ([FS.Mount]), where the system has FUSE
//
// # What is in a view
//
// Shards (model-00001-of-00062.safetensors …, or model.safetensors where there
// is one) with model.safetensors.index.json, config.json as the plan has it, and
// the checkpoint's side files byte for byte. In a shard tensors stand by item
// size, largest first, and then by key, so that all are aligned; the header is
// padded with spaces so that data begins at a multiple of 4096.
//
// # Contract
//
// Everything is safe for concurrent use. A read fills the whole buffer or
// fails: short reads happen only at the end of a file, with [io.EOF], and no goroutine
// touches the buffer after the read has returned, also when it failed or was
// cancelled. Whatever can fail without touching tensor data fails in New.
//
// Reads of recipes that change the order of elements go through the tensor
// cache (Options.CacheSize); all others read the source, ahead of them where reading is
// sequential, and decode into the caller's buffer. Large reads are split over idle cores.
package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
)

// View is one plan and where it stands in the tree.
type View struct {
	Dir       string // "" for the root, else "native", "hf", "rank-0-of-8" …
	Plan      *adapter.Plan
	ShardSize int64 // largest virtual file; 0: the layout's own grouping
}

// Options of a filesystem. Useful zero values.
type Options struct {
	CacheSize   int64       // bytes; 0: the default (see DefaultCacheSize); negative: nothing is kept
	Workers     int         // goroutines that one read may use; 0: GOMAXPROCS
	SourceCache SourceCache // what becomes of source bytes in the system's page cache
	Logger      *slog.Logger

	slowAfter time.Duration // what takes longer is logged; 0: the constant of that name
}

// FS is the tree. It implements io/fs.FS, ReadDirFS and StatFS; its files implement io.ReaderAt.
type FS struct {
	checkpoint *adapter.Checkpoint
	views      []View
	options    Options
	log        *slog.Logger
	logged     sync.Map // causes already logged
	causes     atomic.Int64

	root     *node
	size     int64 // of all files
	files    int
	counters counters
	clock    atomic.Int64 // counts reads
	cache    *cache
	grids    *grids
	computed *computed
	blocks   *blocks
	loads    buffers       // for what is loaded of the source
	strips   strips        // of units, that are computed at once
	shares   shares        // of memory
	lost     expr.Counters // values that a narrower dtype could not hold
	workers  *workers
	sources  sources
	sessions sync.Pool
	live     live
	slowly   slowLog
	watching sync.WaitGroup

	ctx  context.Context // of fills and prefetches
	stop context.CancelFunc
}

// ErrClosed is what reads give after Close.
var ErrClosed = errors.New("filesystem is closed")

// New lays the views out. Everything that can fail without reading tensor data fails here.
// The checkpoint stays the caller's, to be closed after Close; it may be nil for plans that need none.
func New(c *adapter.Checkpoint, views []View, o Options) (*FS, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	f := &FS{checkpoint: c, views: views, options: o, log: o.Logger}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.cache = newCache(f, max(o.CacheSize, 0))
	f.grids = newGrids(0)
	f.computed = newComputed(f)
	f.blocks = newBlocks(f)
	f.strips.sources = &f.sources
	most := mostShares(needs{computed: maxComputed}, allowed(os.ReadFile).bytes)
	if o.CacheSize > 0 {
		most.cache = o.CacheSize
	}
	f.take(most, needs{})
	f.workers = newWorkers(o.Workers)
	f.slowly.after = cmp.Or(o.slowAfter, slowAfter)
	f.sessions.New = func() any { return newSession(f) }
	if err := f.build(); err != nil {
		f.Close()
		return nil, err
	}
	f.watching.Go(f.watchSlow)
	return f, nil
}

// Close stops prefetching and waits for what runs. Reads that come later fail with ErrClosed.
func (f *FS) Close() error {
	f.stop()
	f.cache.close()
	f.computed.close()
	f.blocks.close()
	f.loads.free()
	f.workers.close()
	f.watching.Wait()
	return nil
}

// Views returns the views that the tree shows.
func (f *FS) Views() []View { return slices.Clone(f.views) }

// Fingerprint identifies the checkpoint behind the tree: see [adapter.Checkpoint.Fingerprint]. It is
// empty for a tree without a checkpoint.
func (f *FS) Fingerprint() (string, error) {
	if f.checkpoint == nil {
		return "", nil
	}
	return f.checkpoint.Fingerprint()
}

// build makes the tree.
func (f *FS) build() error {
	b := newBuilder(f)
	for _, v := range f.views {
		if err := b.view(v); err != nil {
			if v.Dir != "" {
				return fmt.Errorf("view %s: %w", v.Dir, err)
			}
			return err
		}
	}
	b.control()
	b.finish()
	return nil
}

var (
	_ iofs.FS        = (*FS)(nil)
	_ iofs.ReadDirFS = (*FS)(nil)
	_ iofs.StatFS    = (*FS)(nil)
)
