package units

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// SourceCache is how the system's page cache is used for source bytes that are read in large
// pieces: by streams, and for units. Small reads always go through the page cache.
type SourceCache uint8

const (
	// SourceAuto reads past the page cache, and through it what is in it or is read again. The
	// kernel caches the results, so a copy of the source only helps if they are computed again. A
	// copy is expensive: it takes two to twenty times the processor time of reading past the cache.
	SourceAuto SourceCache = iota

	// SourceKeep reads through the page cache.
	SourceKeep

	// SourceDrop always reads past the page cache. If a file system cannot do that, what was read
	// is dropped from the page cache.
	SourceDrop
)

// Buffers for source bytes. What is read at once fits into a buffer wherever it begins.
const (
	BufferSize = 2 << 20                         // a large page
	fetchSize  = BufferSize - 2*expr.DirectAlign // the most that is read at once
)

// files are the source files that are being read.
type files struct {
	policy       SourceCache
	buffers      buffers
	bytes, reads atomic.Int64
	watches      sync.Map // expr.File → *watch
}

// watch is what is known of one source file.
type watch struct {
	inflight atomic.Int64
	since    atomic.Int64 // unix ns: when reads began to be under way, or one last ended

	once sync.Once
	seen []atomic.Uint64 // a bit for each region that was read, see again
}

// of gives the watch of a file.
func (s *files) of(f expr.File) *watch {
	if w, ok := s.watches.Load(f); ok {
		return w.(*watch)
	}
	w, _ := s.watches.LoadOrStore(f, new(watch))
	return w.(*watch)
}

// begin notes a read.
func (w *watch) begin() {
	if w.inflight.Add(1) == 1 {
		w.since.Store(time.Now().UnixNano())
	}
}

// end notes the end of a read.
func (w *watch) end(now time.Time) {
	w.since.Store(now.UnixNano())
	w.inflight.Add(-1)
}

// leave notes that a reader gave up. That is not an answer of the file.
func (w *watch) leave() { w.inflight.Add(-1) }

// fetch reads n bytes, at most fetchSize, into a buffer of BufferSize bytes. It gives the part of
// the buffer that holds them. It has no context: others may wait for the bytes, too.
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
	w := s.of(file)
	w.begin()
	n, err := file.ReadAt(ctx, p, off)
	if err != nil && ctx.Err() != nil {
		w.leave()
	} else {
		w.end(time.Now())
	}
	s.count(n)
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

// loan reads what a unit is computed from. Errors are dropped: the recipe then reads for itself
// and reports its own error.
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

// Bytes of the buffer.
func (l *loan) Bytes() []byte { return l.buf }

// Release gives the buffer back.
func (l *loan) Release() { l.of.put(l.buf) }

// seenShift is the size of the regions of which again remembers whether they were read: 256 KiB.
const seenShift = 18

// again notes that a range of a file of size bytes is read, and reports whether all of it was read
// before. A region counts for the range that its first byte is in.
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
