package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"slices"
)

// finish writes the last files and the manifest if all other files are finished. If another part
// is not done, it returns no manifest.
func (w *writer) finish(ctx context.Context) (*Manifest, error) {
	lock, err := w.dir.open(inState(exportName), os.O_RDWR)
	if errors.Is(err, iofs.ErrNotExist) { // another part finished the export
		return w.complete()
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := lockFile(lock); err != nil {
		return nil, err
	}
	m := *w.manifest
	m.Files = slices.Clone(m.Files)
	first, last := m.order()
	if missing := w.collect(&m, first); missing != "" {
		return w.complete() // nil if another part has work to do
	}
	if err := w.files(ctx, last); err != nil {
		return nil, err
	}
	if missing := w.collect(&m, last); missing != "" {
		return nil, fmt.Errorf("%s was changed while it was exported: run the export again",
			w.dir.name(missing))
	}
	return w.seal(&m)
}

// collect puts the records of finished files into the manifest. It stops at the first file that is
// not finished, and returns its name.
func (w *writer) collect(m *Manifest, files []FileRecord) (missing string) {
	for _, f := range files {
		r := w.finished(f)
		if r == nil {
			return f.Name
		}
		i, _ := slices.BinarySearchFunc(m.Files, f.Name, func(f FileRecord, name string) int {
			return cmp.Compare(f.Name, name)
		})
		m.Files[i] = *r
	}
	return ""
}

// seal writes the manifest and removes the state of the unfinished export.
func (w *writer) seal(m *Manifest) (*Manifest, error) {
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := w.dir.replace(inState(manifestName), data); err != nil {
		return nil, err
	}
	w.tell(Event{Kind: Complete})
	return m, w.tidy()
}
