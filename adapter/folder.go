package adapter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// maxEntries is how many files a source's folder may have.
const maxEntries = 100_000

// folder is the store that a checkpoint is opened from, while it is opened.
type folder struct {
	ctx     context.Context
	store   source.Store
	entries []string // names in the folder, sorted
	logger  *slog.Logger
	fits    func(bytes int64) error
	pace    pace
	read    []source.File // that were read, and are closed

	begun map[string]source.File // that are being fetched
}

// newFolder lists the names of a store.
func newFolder(ctx context.Context, s source.Store, o OpenOptions) (*folder, error) {
	d := &folder{ctx: ctx, store: s, logger: o.Logger, fits: o.Fits, pace: paceOf(s)}
	l, err := s.List(ctx, ".", maxEntries+1)
	if err != nil {
		return nil, err
	}
	if len(l.Entries) > maxEntries {
		return nil, fmt.Errorf("more than %d files: not a checkpoint's folder", maxEntries)
	}
	for _, e := range l.Entries {
		d.entries = append(d.entries, e.Name)
	}
	slices.Sort(d.entries)
	d.begin()
	return d, nil
}

// has says whether there is an entry of that name, whatever it is.
func (d *folder) has(name string) bool {
	_, ok := slices.BinarySearch(d.entries, name)
	return ok
}

// open opens a regular file of the folder.
func (d *folder) open(name string) (source.File, error) {
	if f := d.begun[name]; f != nil {
		delete(d.begun, name)
		return f, nil
	}
	return d.store.Open(d.ctx, name)
}

// isFolder says whether an entry is a subfolder, or a link to one.
func (d *folder) isFolder(name string) bool {
	info, err := d.store.Stat(d.ctx, name)
	return err == nil && info.Mode.IsDir()
}

// dangling says where a link of the folder leads if nothing is there.
func (d *folder) dangling(name string) error {
	if _, err := d.store.Stat(d.ctx, name); errors.Is(err, source.ErrMissing) {
		return err
	}
	return nil
}

// size is a file's size, as far as it can be told without opening it.
func (d *folder) size(name string) (n int64, ok bool) {
	info, err := d.store.Stat(d.ctx, name)
	if err != nil || !info.Mode.IsRegular() {
		return 0, false
	}
	return info.Size, true
}

// incomplete adds how to finish a download to an error that looks like an unfinished one.
func (d *folder) incomplete(err error) error { return d.store.Download().Explain(err) }

// readFile reads a small file.
func (d *folder) readFile(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close() // it is only read
	if f.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes: more than %d are not read", name, f.Size(), limit)
	}
	if d.fits != nil {
		if err := d.fits(f.Size()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	data := make([]byte, f.Size())
	_, err = f.ReadAt(d.ctx, data, 0)
	d.read = append(d.read, f)
	return data, err
}

// isFileName says whether a name is one that can be shown: no path, no hidden file,
// nothing that a terminal or a file system would take for something else.
func isFileName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && utf8.ValidString(name) &&
		!strings.ContainsAny(name, `/\`) && !strings.ContainsFunc(name, unicode.IsControl)
}
