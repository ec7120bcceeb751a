package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync/atomic"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/fs/units"
)

// stepSize is the most that one session reads: it keeps its units pinned until it ends.
const stepSize = 4 << 20

// file is a virtual safetensors file: its header and the tensors behind it.
type file struct {
	fs       *FS
	name     string // its path in the tree
	header   []byte
	segments []*segment // [0] is the header; tensors without bytes have none
	ends     []int64    // where each segment ends
	next     *file      // that follows in every directory that has the file; nil: none
	followed bool       // next is known for a directory; see follow
	links    int        // names of the file beside its first
	streams  streams
	ahead    streams // of foreruns
}

// segment is a tensor in a file.
type segment struct {
	key  string
	node expr.Node
	kind atomic.Uint32 // see kindOf
}

// Size is the length of the file.
func (f *file) Size() int64 { return f.ends[len(f.ends)-1] }

// ReadAt is ReadAtContext without a context.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext reads like io.ReaderAt. After it has returned, p is not touched.
func (f *file) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, end, err := clip(p, off, f.Size())
	if err != nil || len(p) == 0 {
		return 0, or(err, end)
	}
	f.fs.counters.active.Add(1)
	defer f.fs.counters.active.Add(-1)
	n := 0
	for n < len(p) {
		step := p[n : n+int(f.step(off+int64(n), int64(min(len(p)-n, stepSize))))]
		if err := f.readStep(ctx, step, off+int64(n)); err != nil {
			return f.fs.served(n, err)
		}
		n += len(step)
	}
	return f.fs.served(n, end)
}

// clip cuts p to the part inside a file of size bytes. end is io.EOF if that is not all of p.
func clip(p []byte, off, size int64) (q []byte, end, err error) {
	if off < 0 {
		return nil, nil, fmt.Errorf("read at negative offset %d", off)
	}
	if rest := max(size-off, 0); int64(len(p)) > rest {
		return p[:rest], io.EOF, nil
	}
	return p, nil, nil
}

func or(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// served counts a read and returns its outcome. A read that its reader gave up has not failed.
func (f *FS) served(n int, err error) (int, error) {
	f.counters.reads.Add(1)
	f.counters.bytes.Add(int64(n))
	if err != nil && err != io.EOF && !errors.Is(err, context.Canceled) {
		f.counters.errors.Add(1)
	}
	return n, err
}

// minStep is the smallest step.
const minStep = 4096

// step returns how much of [off, off+n) is read at once. It is less than n if not all units fit
// into the cache.
func (f *file) step(off, n int64) int64 {
	most, look := f.fs.units.Step()
	for look && n > minStep && f.needs(off, n) > most {
		n = max((off+n/2)&^(minStep-1)-off, minStep)
	}
	return n
}

// needs returns how many bytes of units [off, off+n) needs.
func (f *file) needs(off, n int64) (bytes int64) {
	seen := make(map[expr.UnitKey]bool, 8)
	f.units(off, n, func(u *expr.Unit) bool {
		if key := u.Key(); key.Kind == expr.Transposed && !seen[key] {
			seen[key] = true
			bytes += units.Memory(u.Size())
		}
		return true
	})
	return bytes
}

// readStep reads one step in a session of its own, split over idle cores.
func (f *file) readStep(ctx context.Context, p []byte, off int64) error {
	s := f.fs.session(ctx, f, off, int64(len(p)))
	err := s.readAt(p)
	s.end(err == nil)
	return err
}

// forerun reads p ahead of readers. Neither they nor their streams notice it, and it takes nothing
// from them in the cache. jumps says that what is read next may be elsewhere, so that a local
// source is not read ahead.
func (f *file) forerun(ctx context.Context, p []byte, off int64, jumps bool) error {
	for n := 0; n < len(p); {
		step := p[n : n+int(f.step(off+int64(n), int64(len(p)-n)))]
		s := f.fs.begin(ctx, f, &f.ahead, off+int64(n), int64(len(step)))
		s.run.Leads = s.run.Leads && (!jumps || f.fs.network != nil)
		err := s.readAt(step)
		s.finish(err == nil)
		if err != nil {
			return err
		}
		n += len(step)
	}
	return nil
}

// segment finds the segment of the byte at off.
func (f *file) segment(off int64) int {
	return sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > off })
}

// units yields the units that [off, off+n) needs.
func (f *file) units(off, n int64, yield func(*expr.Unit) bool) {
	for i := f.segment(off); n > 0 && i < len(f.ends); i++ {
		part := min(n, f.ends[i]-off)
		if i > 0 && !f.segments[i].node.Units(off-f.ends[i-1], part, yield) {
			return
		}
		off, n = off+part, n-part
	}
}

// fill reads p segment by segment. All of p is inside the file.
func (f *file) fill(env expr.Env, p []byte, off int64) (err error) {
	defer f.fs.units.Recover(f.name, &err)
	i := f.segment(off)
	for len(p) > 0 {
		if err := env.Err(); err != nil {
			return err
		}
		part := p[:min(int64(len(p)), f.ends[i]-off)]
		if i == 0 {
			copy(part, f.header[off:])
		} else if err := f.segments[i].node.ReadAt(env, part, off-f.ends[i-1]); err != nil {
			return fmt.Errorf("%s: %s: %w", f.name, f.segments[i].key, err)
		}
		p, off = p[len(part):], off+int64(len(part))
		i++
	}
	return nil
}

// Recipe returns the recipe of the byte at off and the range that it fills. The header has none.
func (f *file) Recipe(off int64) (n expr.Node, begin, end int64) {
	i := f.segment(off)
	if i == 0 {
		return nil, 0, f.ends[0]
	}
	return f.segments[i].node, f.ends[i-1], f.ends[i]
}

// Beyond reports whether the stream of a run has come as far as off, or is forgotten.
func (f *file) Beyond(r units.Run, off int64) bool {
	return f.streams.beyond(r, off) && f.ahead.beyond(r, off)
}

// at describes an offset: the file, and the tensor there.
func (f *file) at(off int64) string {
	if i := f.segment(off); i > 0 && i < len(f.segments) {
		return f.name + ": " + f.segments[i].key
	}
	return f.name + ": header"
}

// kindWidth is how many bytes of a tensor are examined to find its kind.
const kindWidth = 1 << 20

// kindOf returns the kind of work that a read at off takes.
func (f *file) kindOf(off int64) kind {
	i := f.segment(off)
	if i == 0 || i >= len(f.segments) {
		return kindHeader
	}
	known := &f.segments[i].kind
	if k := known.Load(); k != 0 {
		return kind(k)
	}
	k := kindOfRecipe(f.segments[i].node)
	known.Store(uint32(k))
	return k
}

// kindOfRecipe returns the kind of work of a recipe.
func kindOfRecipe(n expr.Node) kind {
	stored := func(u *expr.Unit) bool { return u.Key().Kind != expr.Transposed }
	switch {
	case !n.Units(0, min(n.Size(), kindWidth), stored):
		return kindTranspose
	case n.Decodes():
		return kindDequantize
	}
	return kindIdentity
}

// section is a file that is shown unchanged.
type section struct {
	fs   *FS
	name string
	read func(ctx context.Context, p []byte, off int64) (int, error)
	size int64
}

// without adapts a reader that takes no context.
func without(r io.ReaderAt) func(context.Context, []byte, int64) (int, error) {
	return func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }
}

// Size is the length of the file.
func (s *section) Size() int64 { return s.size }

// ReadAt is ReadAtContext without a context.
func (s *section) ReadAt(p []byte, off int64) (int, error) {
	return s.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext reads like io.ReaderAt. It fails if the file has become shorter.
func (s *section) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	p, end, err := clip(p, off, s.size)
	if err != nil || len(p) == 0 {
		return 0, or(err, end)
	}
	defer s.fs.units.Recover(s.name, &err)
	if err := ctx.Err(); err != nil {
		return s.fs.served(0, err)
	}
	n, err = s.read(ctx, p, off)
	if n == len(p) {
		return s.fs.served(n, end)
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return s.fs.served(0, fmt.Errorf("%s: %w", s.name, err))
}

// isEnd reports whether a read succeeded, possibly at the end of the file.
func isEnd(err error) bool { return err == nil || err == io.EOF }
