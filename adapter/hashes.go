package adapter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// PublishedFile is a file of a source that was read whole, and what its publisher says about it.
type PublishedFile struct {
	Name   string
	Size   int64
	SHA256 string // that the publisher tells; empty: none
	Got    string // SHA-256 of the bytes that were read; empty if they were not read
	Err    error  // why not all could be read
}

// CheckPublished reads the files of the source whole whose publisher tells a SHA-256. At most jobs
// files are read at once. progress gets each piece that was read. It may be nil, and may be called
// several times at once. The result has all files, by name.
func (c *Checkpoint) CheckPublished(
	ctx context.Context, jobs int, progress func(name string, n int64),
) ([]PublishedFile, error) {
	if progress == nil {
		progress = func(string, int64) {}
	}
	files, done, err := c.allFiles(ctx)
	defer done()
	if err != nil {
		return nil, err
	}
	all := make([]PublishedFile, len(files))
	_ = concurrently(len(files), max(jobs, 1), func(i int) error { // the errors are in all
		all[i] = hashed(ctx, files[i], progress)
		return nil
	})
	slices.SortFunc(all, func(a, b PublishedFile) int { return strings.Compare(a.Name, b.Name) })
	return all, ctx.Err()
}

// allFiles returns all files that the checkpoint is made of, and opens those again that were
// closed.
func (c *Checkpoint) allFiles(ctx context.Context) (files []source.File, done func(), err error) {
	files = slices.Clone(c.files)
	var again []source.File
	done = func() {
		for _, f := range again {
			_ = f.Close() // it was only read
		}
	}
	for _, f := range c.read {
		if slices.ContainsFunc(files, func(g source.File) bool { return g.Name() == f.Name() }) {
			continue
		}
		g, err := c.store.Open(ctx, f.Name())
		if err != nil {
			return nil, done, fmt.Errorf("%s: %w", f.Name(), err)
		}
		again, files = append(again, g), append(files, g)
	}
	return files, done, nil
}

// hashed reads a file whole, if its publisher tells its hash.
func hashed(
	ctx context.Context, f source.File, progress func(name string, n int64),
) PublishedFile {
	p := PublishedFile{Name: f.Name(), Size: f.Size()}
	if s, ok := f.(source.Published); ok {
		p.SHA256 = s.SHA256()
	}
	if p.SHA256 == "" {
		return p
	}
	h := sha256.New()
	buf := make([]byte, min(f.Size(), 4<<20))
	for off := int64(0); off < f.Size(); {
		if a, ok := f.(source.Ahead); ok {
			a.Ahead(off, min(a.Distance(), f.Size()-off)) // without room, the read waits
		}
		n, err := f.ReadAt(ctx, buf[:min(int64(len(buf)), f.Size()-off)], off)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			p.Err = err
			return p
		}
		h.Write(buf[:n])
		progress(f.Name(), int64(n))
		off += int64(n)
	}
	p.Got = hex.EncodeToString(h.Sum(nil))
	return p
}
