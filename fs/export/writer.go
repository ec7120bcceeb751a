package export

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"sync"
)

// writer is one call of Write.
type writer struct {
	manifest *Manifest // without checksums
	tree     Tree
	path     string
	dir      *directory
	options  Options
	made     map[string]iofs.FileMode // see Manifest.made
	buffers  chan []byte
	mu       sync.Mutex // guards Progress
}

func newWriter(t Tree, dir string, o Options) (*writer, error) {
	m, err := manifestOf(t)
	if err != nil {
		return nil, err
	}
	return &writer{manifest: m, tree: t, path: dir, options: o, made: m.made()}, o.check()
}

// tell reports an event.
func (w *writer) tell(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.options.Progress(e)
}

// skip reports files that an earlier run finished.
func (w *writer) skip(files []FileRecord) {
	for _, f := range files {
		w.tell(Event{Kind: Skipped, File: f.Name, Bytes: f.Size})
	}
}

func (w *writer) run(ctx context.Context) (*Manifest, error) {
	var err error
	if w.dir, err = openDirectory(w.path); err != nil {
		return nil, err
	}
	defer w.dir.close()
	m, err := w.write(ctx)
	if err != nil && ctx.Err() == nil { // another part may have finished and removed the state
		if done, again := w.complete(); done != nil && again == nil {
			return done, nil
		}
	}
	return m, err
}

// write writes the files of this part.
func (w *writer) write(ctx context.Context) (*Manifest, error) {
	if m, err := w.begin(); m != nil || err != nil {
		return m, err
	}
	todo, err := w.plan()
	if err != nil {
		return nil, err
	}
	if err := w.files(ctx, todo); err != nil {
		return nil, err
	}
	return w.finish(ctx)
}

// begin claims the directory for this export. It returns the manifest of a complete export.
func (w *writer) begin() (*Manifest, error) {
	if m, err := w.complete(); m != nil || err != nil {
		return m, err
	}
	begun, err := w.begun()
	if err != nil {
		return nil, err
	}
	if err := w.survey(); err != nil {
		return nil, err
	}
	if begun {
		return nil, w.tryRename()
	}
	return nil, w.start()
}

// start begins a new export.
func (w *writer) start() error {
	if err := w.vacant(); err != nil {
		return err
	}
	if err := w.tryRename(); err != nil {
		return err
	}
	return w.claim()
}

// complete returns the manifest of a complete export of the same tree, or nil.
func (w *writer) complete() (*Manifest, error) {
	m, err := w.readManifest(manifestName, true)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := w.confirm(m); err != nil {
		return nil, err
	}
	w.skip(m.Files)
	w.tell(Event{Kind: Complete})
	return m, w.tidy()
}

// confirm returns an error if the directory is not a complete export of this tree.
func (w *writer) confirm(m *Manifest) error {
	if d := w.manifest.difference(m); d != "" {
		return &ForeignError{w.path, "holds an export " + d + ": give another directory"}
	}
	if err := w.survey(); err != nil {
		return err
	}
	return w.allWhole(m)
}

// allWhole returns an error if a file of a complete export is not whole.
func (w *writer) allWhole(m *Manifest) error {
	for i := range m.Files {
		r := &m.Files[i]
		s, err := openSource(w.tree, FileRecord{Name: r.Name, Size: r.Size})
		if err == nil {
			err = w.whole(r, s)
		}
		if err != nil {
			return fmt.Errorf("%w: but %s says that it was finished: "+
				"remove %s to export again, or give another directory",
				err, w.dir.name(inState(manifestName)), w.path)
		}
	}
	return nil
}

// readManifest reads a manifest in the state directory.
func (w *writer) readManifest(name string, finished bool) (*Manifest, error) {
	f, err := w.dir.open(inState(name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit, err := manifestLimit(f, w.path)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(f, limit, finished)
	if err != nil {
		return nil, fmt.Errorf("%w: remove %s and the exported files, or give another directory",
			err, w.dir.name(stateDir))
	}
	return m, nil
}

// begun reports whether the directory has an unfinished export of the same tree.
func (w *writer) begun() (bool, error) {
	m, err := w.readManifest(exportName, false)
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d := w.manifest.difference(m); d != "" {
		return false, &ForeignError{w.path,
			"holds an unfinished export " + d + ": give another directory, or remove that one"}
	}
	return true, nil
}

// vacant returns an error if the directory holds more than an empty state directory.
func (w *writer) vacant() error {
	return w.dir.each(".", func(name string) error {
		if name == stateDir || name == "lost+found" {
			return nil
		}
		if ok, err := w.begun(); ok || err != nil { // another part was faster
			return err
		}
		return &ForeignError{w.path, fmt.Sprintf("is not empty (it holds %s) and not an export: "+
			"give an empty or a new directory", name)}
	})
}

// tryRename returns an error if files cannot be renamed. In that case it removes what it created.
func (w *writer) tryRename() error {
	err := w.dir.canRename(stateDir, inState(partialDir))
	if err != nil {
		w.dir.remove(inState(partialDir), iofs.ModeDir)
		w.dir.remove(stateDir, iofs.ModeDir)
	}
	return err
}

// claim writes the manifest of the unfinished export. If several processes try, the first wins.
func (w *writer) claim() error {
	data, err := w.manifest.encode()
	if err != nil {
		return err
	}
	temp, err := w.dir.writeTemp(stateDir, data)
	if err != nil {
		return err
	}
	defer w.dir.remove(temp, 0)
	if err := w.dir.renameFree(temp, inState(exportName)); err != nil {
		return err
	}
	if err := w.dir.sync(stateDir); err != nil {
		return err
	}
	_, err = w.begun()
	return err
}
