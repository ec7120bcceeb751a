package units

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// SourceCache says how large reads of the source use the system's page cache. Large reads are those
// of streams and of units. Small reads always go through the page cache.
type SourceCache uint8

const (
	// SourceAuto reads past the page cache, except for bytes that are in it or are read again. The
	// kernel caches the results, so a cached copy of the source only helps if results are computed
	// again. Such a copy costs processor time.
	SourceAuto SourceCache = iota

	// SourceKeep reads through the page cache.
	SourceKeep

	// SourceDrop always reads past the page cache. If a file system cannot do that, the bytes are
	// dropped from the page cache after the read.
	SourceDrop
)

// Sizes of buffers for source bytes. One read of fetchSize bytes fits into a buffer at any offset.
const (
	BufferSize = 2 << 20                         // a large page
	fetchSize  = BufferSize - 2*expr.DirectAlign // the most that is read at once
)

// files reads the source files and counts and watches the reads.
type files struct {
	ctx          context.Context // ends when the cache is closed
	policy       SourceCache
	buffers      buffers
	bytes, reads atomic.Int64
	watches      sync.Map // expr.File → *watch
}

// watch records the reads of one source file.
type watch struct {
	inflight atomic.Int64
	since    atomic.Int64 // unix ns: when the file became busy, or a read last ended

	once sync.Once
	seen []atomic.Uint64 // a bit for each region that was read, see again
}

// of returns the watch of a file.
func (s *files) of(f expr.File) *watch {
	if w, ok := s.watches.Load(f); ok {
		return w.(*watch)
	}
	w, _ := s.watches.LoadOrStore(f, new(watch))
	return w.(*watch)
}

// begin records the beginning of a read.
func (w *watch) begin() {
	if w.inflight.Add(1) == 1 {
		w.since.Store(time.Now().UnixNano())
	}
}

// end records the end of a read.
func (w *watch) end(now time.Time) {
	w.since.Store(now.UnixNano())
	w.inflight.Add(-1)
}

// leave notes that a reader gave up. That is not an answer of the file.
func (w *watch) leave() { w.inflight.Add(-1) }

// fetch reads n bytes, at most fetchSize, into a buffer of BufferSize bytes. It returns the part of
// the buffer that holds them. Several readers may wait for the bytes, so none of them ends it.
func (s *files) fetch(file expr.File, buf []byte, off, n int64) ([]byte, error) {
	again := s.of(file).again(file.Size(), off, n)
	d, ok := file.(expr.DirectFile)
	if !ok || s.policy == SourceKeep || s.policy == SourceAuto && again {
		_, err := s.read(context.Background(), file, buf[:n], off)
		return buf[:n], err
	}
	skip := off % expr.DirectAlign
	whole := (skip + n + expr.DirectAlign - 1) &^ (expr.DirectAlign - 1)
	if err := s.readDirect(d, buf[:whole], off-skip, skip+n); err != nil {
		return nil, err
	}
	return buf[skip : skip+n], nil
}

// read fills p through the page cache, or fails.
func (s *files) read(ctx context.Context, file expr.File, p []byte, off int64) (int, error) {
	ctx, done := s.until(ctx, file)
	defer done()
	w := s.of(file)
	w.begin()
	n, err := file.ReadAt(ctx, p, off)
	if err != nil && ctx.Err() != nil {
		w.leave()
	} else {
		w.end(time.Now())
	}
	s.count(n)
	if n < len(p) && errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
		err = ErrClosed
	}
	if n < len(p) && err == nil {
		err = fmt.Errorf("%s: read %d of %d bytes at %d", file.Name(), n, len(p), off)
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// readDirect reads need bytes, or more, past the page cache.
func (s *files) readDirect(file expr.DirectFile, p []byte, off, need int64) error {
	w := s.of(file)
	w.begin()
	n, err := file.ReadDirect(p, off)
	w.end(time.Now())
	s.count(n)
	if int64(n) < need {
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	return nil
}

// count counts a read.
func (s *files) count(n int) {
	s.reads.Add(1)
	s.bytes.Add(int64(n))
}

// loan is a buffer of source bytes that one recipe uses.
type loan struct {
	of  *buffers
	buf []byte
}

// loan reads source bytes for a unit. Errors are dropped: the recipe then reads for itself and
// reports its own error.
func (s *files) loan(file expr.File, off int64, n int) ([]byte, expr.Entry, int) {
	if n > fetchSize {
		return nil, nil, n
	}
	l := &loan{&s.buffers, s.buffers.get(BufferSize)}
	p, err := s.fetch(file, l.buf, off, int64(n))
	if err != nil {
		l.Release()
		return nil, nil, n
	}
	return p, l, 0
}

// Bytes returns the bytes of the buffer.
func (l *loan) Bytes() []byte { return l.buf }

// Release returns the buffer for reuse.
func (l *loan) Release() { l.of.put(l.buf) }

// seenShift is the size of the regions in which again records reads: 256 KiB.
const seenShift = 18

// again records a read of a range of a file of size bytes. It reports whether all of the range was
// read before. A region counts for the range that its first byte is in.
func (w *watch) again(size, off, n int64) bool {
	w.once.Do(func() { w.seen = make([]atomic.Uint64, size>>(seenShift+6)+1) })
	all, some := true, false
	for r := (off + 1<<seenShift - 1) >> seenShift; r<<seenShift < min(off+n, size); r++ {
		bit := uint64(1) << (r & 63)
		old := w.seen[r>>6].Or(bit)
		all, some = all && old&bit != 0, true
	}
	return all && some
}
