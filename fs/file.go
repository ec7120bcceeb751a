package fs

import (
	"context"
	"fmt"
	"io"
	"sort"
	"sync/atomic"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// stepSize is the most that one session reads: what it pins in the cache is in use until it ends.
const stepSize = 4 << 20

// file is a virtual safetensors file: its header and the tensors behind it.
type file struct {
	fs       *FS
	name     string // its path in the tree
	header   []byte
	segments []*segment // [0] is the header; tensors without bytes have none
	ends     []int64    // where each segment ends
	streams  streams
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

// ReadAtContext reads like io.ReaderAt. When it returns, nobody touches p any more.
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

// clip cuts p to what lies inside a file of size bytes; end is io.EOF if that is less than all of p.
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

// served counts a read and passes its outcome on.
func (f *FS) served(n int, err error) (int, error) {
	f.counters.reads.Add(1)
	f.counters.bytes.Add(int64(n))
	if err != nil && err != io.EOF {
		f.counters.errors.Add(1)
	}
	return n, err
}

// minStep is how far steps are made smaller.
const minStep = 4096

// step gives how much of [off, off+n) is read at once: less than all of it if that needs more units than
// there is room for.
func (f *file) step(off, n int64) int64 {
	most, look := f.fs.cache.step()
	for look && n > minStep && f.needs(off, n) > most {
		n = max((off+n/2)&^(minStep-1)-off, minStep)
	}
	return n
}

// needs is how many bytes of units [off, off+n) needs.
func (f *file) needs(off, n int64) (bytes int64) {
	seen := make(map[expr.UnitKey]bool, 8)
	f.units(off, n, func(u *expr.Unit) bool {
		if key := u.Key(); key.Kind == expr.Transposed && !seen[key] {
			seen[key] = true
			bytes += taken(u)
		}
		return true
	})
	return bytes
}

// readStep reads one step in a session of its own, split over idle cores.
func (f *file) readStep(ctx context.Context, p []byte, off int64) error {
	s := f.fs.session(ctx, f, off, int64(len(p)))
	defer s.end()
	return s.readAt(p)
}

// segment finds the segment that the byte at off lies in.
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

// fill reads p, which lies inside the file, segment by segment.
func (f *file) fill(env *expr.Env, p []byte, off int64) (err error) {
	defer f.fs.recover(f.name, &err)
	i := f.segment(off)
	for len(p) > 0 {
		if err := env.Context.Err(); err != nil {
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

// section is a file whose bytes are shown as they are.
type section struct {
	fs   *FS
	name string
	read func(ctx context.Context, p []byte, off int64) (int, error)
	size int64
}

// without reads what needs no context.
func without(r io.ReaderAt) func(context.Context, []byte, int64) (int, error) {
	return func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }
}

// Size is the length of the file.
func (s *section) Size() int64 { return s.size }

// ReadAt is ReadAtContext without a context.
func (s *section) ReadAt(p []byte, off int64) (int, error) {
	return s.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext reads like io.ReaderAt; a file that has become shorter is an error.
func (s *section) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	p, end, err := clip(p, off, s.size)
	if err != nil || len(p) == 0 {
		return 0, or(err, end)
	}
	defer s.fs.recover(s.name, &err)
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
