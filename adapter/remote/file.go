package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

var (
	_ source.Ahead     = (*file)(nil)
	_ source.Sectioned = (*file)(nil)
	_ source.Published = (*file)(nil)
	_ source.Versioned = (*file)(nil)
)

// file is one version of an object.
type file struct {
	in     *store
	object *object
	blocks *table
}

func newFile(s *store, o *object) *file {
	return &file{in: s, object: o, blocks: newTable(s.fetcher, o)}
}

// Name is the object's name below the folder of the source.
func (f *file) Name() string { return f.object.name }

// Size is the length in bytes of the pinned version.
func (f *file) Size() int64 { return f.object.size }

// ModTime is when the pinned version was made.
func (f *file) ModTime() time.Time { return f.object.modified }

// Mode is the permission bits.
func (f *file) Mode() fs.FileMode { return f.in.mode() }

// Check succeeds, because every answer was compared with the pinned version.
func (f *file) Check() error { return nil }

// Unseen names changes that would not be noticed.
func (f *file) Unseen() string { return f.object.unseen }

// SHA256 is the hash of the content if the publisher tells it.
func (f *file) SHA256() string { return f.object.sha256 }

// Version is the store's name of the pinned version, if it has one.
func (f *file) Version() string { return cmp.Or(f.object.version, f.object.etag) }

// Access is who may read the file.
func (f *file) Access(*source.Lookup) *source.Access { return f.in.access(f.object.name) }

// ReadAt reads bytes of the pinned version, or fails.
func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", f.object.name, off)
	}
	var end error
	if rest := max(f.object.size-off, 0); int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	n, err := f.blocks.read(ctx, p, off)
	if err != nil {
		return n, fmt.Errorf("%s: %w", f.object.name, clean(err))
	}
	return n, end
}

// Ahead begins to fetch a range.
func (f *file) Ahead(off, n int64) bool { return f.blocks.ahead(off, n) }

// Distance is how far ahead of a reader bytes are worth fetching.
func (f *file) Distance() int64 { return f.in.fetcher.distance() }

// Cut tells where tensors begin.
func (f *file) Cut(begins []int64) { f.blocks.cut(begins) }

// Close frees the blocks of the file.
func (f *file) Close() error {
	f.blocks.close()
	return nil
}
