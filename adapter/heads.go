package adapter

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// headerAhead is how many bytes of each shard are read ahead. Most headers are shorter.
const headerAhead = 128 << 10

// pace is how many things are done at the same time while a checkpoint is opened.
type pace struct {
	heads int // shards that are opened, or whose headers are read
	small int // reads of small tensors
}

// Over a network each read takes long, and the memory for heads is 8 MiB.
var (
	localPace   = pace{heads: 16, small: 16}
	networkPace = pace{heads: 64, small: 256}
)

// openAll opens files at the same time. It returns those that were opened even if some could not
// be; then the error is that of the first name.
func (d *folder) openAll(names []string) ([]source.File, error) {
	files := make([]source.File, len(names))
	err := concurrently(len(names), d.pace.heads, func(i int) (err error) {
		if files[i], err = d.open(names[i]); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		return nil
	})
	opened := files[:0]
	for _, f := range files {
		if f != nil {
			opened = append(opened, f)
		}
	}
	return opened, err
}

// concurrently calls do with 0 to n-1, atOnce of them at the same time. The error is that of the
// lowest number, whichever call ends first. Numbers above one that failed may be left out.
func concurrently(n, atOnce int, do func(i int) error) error {
	var failed atomic.Bool
	var all errgroup.Group
	all.SetLimit(atOnce)
	errs := make([]error, n)
	for i := 0; i < n && !failed.Load(); i++ {
		all.Go(func() error {
			if errs[i] = do(i); errs[i] != nil {
				failed.Store(true)
			}
			return nil
		})
	}
	_ = all.Wait() // the errors are in errs
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// shardHead is a shard whose first bytes are read ahead. It is an io.ReaderAt of the whole shard.
type shardHead struct {
	source.File
	ctx   context.Context
	bytes []byte        // the first bytes; none if they could not be read
	done  chan struct{} // closed when they are read
}

// read reads the first bytes. An error is left to the parser of the header, which reads again.
func (h *shardHead) read(buf []byte) {
	defer close(h.done)
	buf = buf[:min(h.Size(), headerAhead)]
	if n, err := h.File.ReadAt(h.ctx, buf, 0); n == len(buf) && err == nil {
		h.bytes = buf
	}
}

// ReadAt reads what it can from the first bytes, and the rest from the shard.
func (h *shardHead) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, h.bytes[min(off, int64(len(h.bytes))):])
	if n == len(p) {
		return n, nil
	}
	rest, err := h.File.ReadAt(h.ctx, p[n:], off+int64(n))
	return n + rest, err
}

// eachHead calls do with the head of each file, in order, while the next heads are read. At most
// atOnce heads are in memory. It ends at the first error.
func eachHead(
	ctx context.Context, files []source.File, atOnce int, do func(h *shardHead) error,
) error {
	bufs := make([][]byte, min(len(files), atOnce))
	heads := make([]*shardHead, len(files))
	begin := func(i int) {
		if i >= len(files) {
			return
		}
		slot := i % len(bufs)
		if bufs[slot] == nil {
			bufs[slot] = make([]byte, headerAhead)
		}
		heads[i] = &shardHead{File: files[i], ctx: ctx, done: make(chan struct{})}
		go heads[i].read(bufs[slot])
	}
	for i := range bufs {
		begin(i)
	}
	for i := range heads {
		<-heads[i].done
		if err := do(heads[i]); err != nil {
			awaitHeads(heads[i+1:])
			return err
		}
		heads[i] = nil
		begin(i + len(bufs))
	}
	return nil
}

// awaitHeads waits until no head is read any more.
func awaitHeads(heads []*shardHead) {
	for _, h := range heads {
		if h != nil {
			<-h.done
		}
	}
}
