package fs

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// SourceCache says what becomes of source bytes in the system's page cache. It is about what is read in large pieces: by
// streams, and for units of the tensor cache. Small reads here and there always go through it.
type SourceCache uint8

const (
	// SourceAuto reads past the page cache what is not in it, and through it what is read again, so that it stays there.
	// The kernel keeps the results, so a second copy of what they were computed from helps only those who compute them
	// again. And it is dear: filling pages with a GiB of source takes 0.1 s of the processor where memory is at hand and
	// more than a second in a virtual machine whose host has to find it; reading past the cache takes 0.04 s.
	SourceAuto SourceCache = iota

	// SourceKeep reads through the page cache.
	SourceKeep

	// SourceDrop reads past the page cache, also again; where a filesystem has no such reads, what was read is let go.
	SourceDrop
)

const (
	loadBuffer = 2 << 20                         // a large page
	loadSize   = loadBuffer - 2*expr.DirectAlign // most that is loaded at once: it fits into a buffer wherever it begins
)

// load reads n bytes, at most loadSize, into a buffer of loadBuffer bytes, and gives the part of it where they are.
func (f *FS) load(file expr.File, buf []byte, off, n int64) ([]byte, error) {
	again := f.sources.of(file).again(file.Size(), off, n)
	d, ok := file.(expr.DirectFile)
	if !ok || f.options.SourceCache == SourceKeep || f.options.SourceCache == SourceAuto && again {
		_, err := f.readSource(context.Background(), file, buf[:n], off)
		return buf[:n], err
	}
	skip := off % expr.DirectAlign
	whole := (skip + n + expr.DirectAlign - 1) &^ (expr.DirectAlign - 1)
	if err := f.readDirect(d, buf[:whole], off-skip, skip+n); err != nil {
		return nil, err
	}
	return buf[skip : skip+n], nil
}

// readSource reads a source file through the page cache: counted, complete, and watched for stalls.
func (f *FS) readSource(ctx context.Context, file expr.File, p []byte, off int64) (int, error) {
	watch := f.sources.of(file)
	watch.begin()
	n, err := file.ReadAt(ctx, p, off)
	watch.end(time.Now())
	f.counters.read(n)
	if n < len(p) && err == nil {
		err = fmt.Errorf("%s: read %d of %d bytes at %d", file.Name(), n, len(p), off)
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// readDirect reads need bytes, or more, past the page cache.
func (f *FS) readDirect(file expr.DirectFile, p []byte, off, need int64) error {
	watch := f.sources.of(file)
	watch.begin()
	n, err := file.ReadDirect(p, off)
	watch.end(time.Now())
	f.counters.read(n)
	if int64(n) < need {
		return or(err, io.ErrUnexpectedEOF)
	}
	return nil
}

// read counts a read of the source.
func (c *counters) read(n int) {
	c.preads.Add(1)
	c.sourceBytes.Add(int64(n))
}

// loan is a buffer with source bytes that one recipe uses.
type loan struct {
	of  *buffers
	buf []byte
}

// lend loads what a unit is computed from. Errors are dropped: the recipe then reads for itself, and reports its
// own error.
func (f *FS) lend(file expr.File, off int64, n int) ([]byte, expr.Entry, int) {
	if n > loadSize {
		return nil, nil, n
	}
	l := &loan{&f.loads, f.loads.get(loadBuffer)}
	p, err := f.load(file, l.buf, off, int64(n))
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

// seenShift makes the regions of which again remembers whether they were loaded: 256 KiB.
const seenShift = 18

// again notes that a range of a file of size bytes is loaded, and says whether all of it was before. A region counts
// for the range that its first byte lies in.
func (w *source) again(size, off, n int64) bool {
	w.once.Do(func() { w.seen = make([]atomic.Uint64, size>>(seenShift+6)+1) })
	all, some := true, false
	for r := (off + 1<<seenShift - 1) >> seenShift; r<<seenShift < min(off+n, size); r++ {
		bit := uint64(1) << (r & 63)
		old := w.seen[r>>6].Or(bit)
		all, some = all && old&bit != 0, true
	}
	return all && some
}
