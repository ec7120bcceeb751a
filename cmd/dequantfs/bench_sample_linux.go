package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// benchPart is the beginning of a virtual file.
type benchPart struct {
	name  string
	bytes int64
}

// benchRange is a range of a source file.
type benchRange struct {
	path string
	off  int64
	n    int64
}

// chooseSample takes whole shards up to n bytes, and cuts the last one. The largest shards come
// first, because they have the experts.
func chooseSample(f *fs.FS, n int64) ([]benchPart, error) {
	names, err := iofs.Glob(f, "*.safetensors")
	if err != nil {
		return nil, err
	}
	var parts []benchPart
	for _, name := range names {
		info, err := f.Stat(name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, benchPart{name, info.Size()})
	}
	slices.SortStableFunc(parts, func(a, b benchPart) int { return cmp.Compare(b.bytes, a.bytes) })
	for i := range parts {
		parts[i].bytes = min(parts[i].bytes, n) &^ (1<<12 - 1) // whole blocks, for O_DIRECT
		if n -= parts[i].bytes; parts[i].bytes == 0 || n <= 0 {
			parts = parts[:i+1]
			break
		}
	}
	parts = slices.DeleteFunc(parts, func(p benchPart) bool { return p.bytes == 0 })
	if len(parts) == 0 {
		return nil, errors.New("the view has no tensors to read")
	}
	return parts, nil
}

func sampleBytes(parts []benchPart) (n int64) {
	for _, p := range parts {
		n += p.bytes
	}
	return n
}

// rangesOf finds the bytes of the source from which the sample is computed.
func (s *opened) rangesOf(parts []benchPart) ([]benchRange, error) {
	nodes := map[string]expr.Node{}
	for _, t := range s.views[0].Plan.Tensors {
		nodes[t.Name] = t.Node
	}
	var ranges []benchRange
	for _, p := range parts {
		r, err := s.fs.ReaderAt(p.name)
		if err != nil {
			return nil, err
		}
		h, err := safetensors.ReadHeader(r, r.Size())
		if err != nil {
			return nil, err
		}
		for _, t := range h.Tensors {
			if n := min(t.End, p.bytes-h.DataOffset) - t.Begin; n > 0 {
				ranges = append(ranges, s.rangesOfNode(nodes[t.Name], n)...)
			}
		}
	}
	return joinRanges(ranges), nil
}

// rangesOfNode finds the source bytes for the first n bytes of a recipe.
func (s *opened) rangesOfNode(node expr.Node, n int64) (ranges []benchRange) {
	add := func(f expr.File, off, n int64) bool {
		ranges = append(ranges, benchRange{s.shardPath(f.Name()), off, min(n, f.Size()-off)})
		return true
	}
	node.Ranges(0, n, add)
	node.Units(0, n, func(u *expr.Unit) bool {
		key := u.Key()
		return add(key.File, key.Offset, key.Rows*max(key.Stride, key.Cols))
	})
	return ranges
}

// shardPath returns the path of a file of the source, or its name if it comes over a network.
func (s *opened) shardPath(name string) string {
	if _, remote := s.checkpoint.Traffic(); remote {
		return name
	}
	return filepath.Join(s.checkpoint.Folder(), filepath.FromSlash(name))
}

// touches reports whether a range begins in this one or right after it.
func (b *benchRange) touches(r benchRange) bool { return r.path == b.path && r.off <= b.off+b.n }

// joinRanges sorts ranges and joins those that touch.
func joinRanges(ranges []benchRange) []benchRange {
	slices.SortFunc(ranges, func(a, b benchRange) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.off, b.off))
	})
	var joined []benchRange
	for _, r := range ranges {
		if n := len(joined); n > 0 && joined[n-1].touches(r) {
			joined[n-1].n = max(joined[n-1].n, r.off+r.n-joined[n-1].off)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// makeCopy writes the sample to disk, or uses an existing copy.
func (b *bench) makeCopy(ctx context.Context) error {
	if b.against != "" {
		b.copy = b.against
		for _, p := range b.sample {
			want, err := b.source.fs.Stat(p.name)
			if err != nil {
				return err
			}
			got, err := os.Stat(filepath.Join(b.against, p.name))
			if err != nil {
				return err
			}
			if got.Size() != want.Size() {
				err := fmt.Errorf("%s: %s has %d bytes, the view's has %d", b.against, p.name,
					got.Size(), want.Size())
				return withHint(err, "give --against an export of the same view")
			}
		}
		return nil
	}
	b.copy = b.path("copy")
	if !b.wants("copy") {
		return nil
	}
	b.say("writing a copy of %s to %s", formatSize(sampleBytes(b.sample)), b.copy)
	if err := os.Mkdir(b.copy, 0o777); err != nil {
		return err
	}
	for _, p := range b.sample {
		if err := b.copyPart(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) copyPart(ctx context.Context, p benchPart) error {
	r, err := b.source.fs.ReaderAt(p.name)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(b.copy, p.name))
	if err != nil {
		return err
	}
	buf := make([]byte, benchPiece)
	for off := int64(0); off < p.bytes && err == nil; {
		piece := buf[:min(int64(len(buf)), p.bytes-off)]
		var n int
		if n, err = r.ReadAtContext(ctx, piece, off); n == len(piece) {
			_, err = f.Write(piece)
		} else {
			err = cmp.Or(err, io.ErrUnexpectedEOF)
		}
		off += int64(n)
	}
	return errors.Join(err, f.Sync(), f.Close())
}
