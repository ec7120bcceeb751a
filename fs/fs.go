// Package fs shows planned checkpoints as a tree of virtual files, and mounts it.
//
// Start with [New], which lays out the views of a checkpoint. The tree can be read in three ways.
// They all end in the same function, so they give the same bytes:
//
//   - as an [io/fs.FS] ([FS.Open]); open files are also [io.ReaderAt] and [io.Seeker]
//   - by [FS.ReaderAt], which takes a context
//   - through a mount ([FS.Mount]), if the system has FUSE
//
// Package fs/export writes a tree to disk.
//
// # What is in a view
//
// A view has shards, the config.json of the plan, and the side files of the checkpoint, byte for
// byte. The shards are model-00001-of-00062.safetensors and so on, with
// model.safetensors.index.json. A single shard is model.safetensors, without an index. Views of
// Mistral's own layout have params.json, and "consolidated" in place of "model".
//
// In a view of an expert-parallel rank, the experts are in files of their own, before the others.
// The other files are the same in every rank. If a tree has several ranks, they are hard links.
//
// In a shard, tensors are ordered by item size, largest first, and then by key. This order keeps
// all of them aligned. The header is padded with spaces so that the data begins at a multiple of
// 4096.
//
// # Contract
//
// Everything is safe for concurrent use. A read fills the whole buffer or fails. Short reads only
// happen at the end of a file, with [io.EOF]. No goroutine touches the buffer after the read has
// returned, even if it failed or was cancelled. New reports every error that can be found without
// reading tensor data.
//
// Reads of recipes that change the order of elements go through the tensor cache
// (Options.CacheSize). All others read the source and decode it into the buffer of the caller. If
// reading is sequential, the source is read ahead. Large reads are split over idle cores.
//
// # The path of a read
//
// A READ of the kernel for a tensor whose rows are contiguous passes these files:
//
//	fs        nodes_linux.go      the handler
//	          interrupt_linux.go  the context, which ends when the reader is killed
//	          file.go             steps, and which tensor is where
//	          session.go          one step, from its beginning to its end
//	          streams.go          detects sequential reading
//	          ahead.go            reads ahead if reading is sequential
//	          lead.go             the same for a source over a network
//	          pieces.go           parts for idle cores
//	          crowd.go            estimates which cores are idle
//	          stats.go            counters
//	fs/units  units.go            the interface of the cache
//	          read.go             the environment of the recipe
//	          scales.go           its scales, if it has any
//	          blocks.go           bytes that were read ahead
//	          files.go            all other bytes
//	          waits.go            how long it waited, and for what
//
// From session.go on, fs/units calls fs back through one interface, [units.File].
//
// When a loader is recognised, what it reads next takes a path of its own, ahead of its READs:
//
//	fs  forerun.go  recognises loaders, and says how far ahead to go
//	    front.go    recognises those that read tensors in the order of their keys
//	    shelf.go    the bytes of a view in the order in which a loader reads them
//	    given.go    the pages that the kernel has
//	    chunks.go   decodes as above from session.go on, and stores in the kernel's page cache
//
// The recipe itself is in adapter/expr. A tensor that is shown as stored uses env.go and load.go. A
// dequantized tensor uses window.go, dequantize.go, region.go, grid.go, env.go and buffer.go.
//
// A fill of a unit, for a tensor that is transposed, passes these files of fs/units:
//
//	cache.go    admits the read, or makes it wait for room
//	evict.go    makes room
//	fill.go     computes the unit, in strips
//	strips.go   limits how many strips are computed at once
//	files.go    reads the source
//	buffers.go  memory
//	waits.go    how long it waited, and for what
//	span.go     after the read, finds where in the file the unit is needed
package fs

import (
	"cmp"
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
	"github.com/dequantfs/dequantfs/fs/units"
)

// View is a plan and its place in the tree.
type View struct {
	Dir       string // "" for the root, or "native", "hf", "rank-0-of-8" …
	Plan      *adapter.Plan
	ShardSize int64 // the most bytes of a virtual file; 0: files as the layout groups them
}

// Options of a filesystem. Zero values are useful.
type Options struct {
	CacheSize   int64 // bytes; 0: the default (see DefaultCacheSize); negative: nothing is kept
	Workers     int   // goroutines that one read may use; 0: GOMAXPROCS
	SourceCache units.SourceCache
	Logger      *slog.Logger

	slowAfter time.Duration // longer reads are logged; 0: the constant slowAfter
	tuning    units.Tuning
}

// FS is the tree. It implements io/fs.FS, ReadDirFS and StatFS. Its files implement io.ReaderAt.
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
	units    *units.Cache
	network  expr.AheadFile // a file of the source, if they come over a network; or nil
	shares   shares         // of memory
	workers  *workers
	direct   bool // the mount reads shards past the page cache
	sessions sync.Pool
	live     live
	ahead    atomic.Pointer[foreruns] // of the last mount; nil: none
	crowd    crowd
	slow     *slog.Logger // a few lines a minute about what is slow

	closed   chan struct{}
	close    sync.Once
	watching sync.WaitGroup
}

// ErrClosed is the error of reads after Close.
var ErrClosed = units.ErrClosed

// New lays out the views. It reports every error that can be found without reading tensor data. The
// caller closes the checkpoint after Close. The checkpoint may be nil if the plans need none.
func New(c *adapter.Checkpoint, views []View, o Options) (*FS, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	f := &FS{checkpoint: c, views: views, options: o, log: o.Logger}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.slow = slog.New(&fewLines{Handler: f.log.Handler()})
	f.options.slowAfter = cmp.Or(o.slowAfter, slowAfter)
	f.closed = make(chan struct{})
	most := mostShares(needs{computed: maxComputed}, allowed(os.ReadFile).bytes)
	if o.CacheSize > 0 {
		most.cache = o.CacheSize
	}
	f.units = units.New(units.Options{
		Limits: f.limits(most, needs{}), Workers: o.Workers, SourceCache: o.SourceCache,
		Logger: f.log, Slow: f.slow, SlowAfter: f.options.slowAfter, Tuning: o.tuning,
	})
	f.shares = most
	f.workers = newWorkers(o.Workers)
	f.sessions.New = func() any { return newSession(f) }
	if err := f.build(); err != nil {
		f.Close()
		return nil, err
	}
	f.watching.Go(f.watchSlow)
	return f, nil
}

// Close stops prefetching and waits for running reads. Later reads fail with ErrClosed.
func (f *FS) Close() error {
	f.close.Do(func() { close(f.closed) })
	f.units.Close()
	f.workers.close()
	f.watching.Wait()
	return nil
}

// Views returns the views that the tree shows.
func (f *FS) Views() []View { return slices.Clone(f.views) }

// Fingerprint identifies the checkpoint of the tree, see [adapter.Checkpoint.Fingerprint]. It is
// empty for a tree without a checkpoint.
func (f *FS) Fingerprint() (string, error) {
	if f.checkpoint == nil {
		return "", nil
	}
	return f.checkpoint.Fingerprint()
}

// Version identifies the files of the checkpoint, see [adapter.Checkpoint.Version]. It is empty for
// a tree without a checkpoint.
func (f *FS) Version() (string, error) {
	if f.checkpoint == nil {
		return "", nil
	}
	return f.checkpoint.Version()
}

// build builds the tree.
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
	f.network = f.findNetwork()
	return nil
}

var (
	_ iofs.FS        = (*FS)(nil)
	_ iofs.ReadDirFS = (*FS)(nil)
	_ iofs.StatFS    = (*FS)(nil)
)
