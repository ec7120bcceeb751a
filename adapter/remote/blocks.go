package remote

import (
	"context"
)

// table is the blocks of one file.
type table struct {
	fetcher *fetcher
	object  *object
}

func newTable(f *fetcher, o *object) *table { return &table{fetcher: f, object: o} }

// read fills p, which is inside the file.
func (t *table) read(ctx context.Context, p []byte, off int64) (int, error) {
	return t.fetcher.fetch(ctx, t.object, p, off)
}

// ahead begins to fetch a range.
func (t *table) ahead(off, n int64) bool { return false }

// cut tells where tensors begin.
func (t *table) cut(begins []int64) {}

// close frees the blocks.
func (t *table) close() {}
