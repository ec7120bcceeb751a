package export

import (
	"errors"
	iofs "io/fs"
	"path"
)

// The state of an export is in a hidden directory, so that no loader takes it for a part of the
// checkpoint.
const (
	stateDir     = ".dequantfs"
	manifestName = "manifest.json" // in a complete export
	exportName   = "export.json"   // in an unfinished export: the manifest without checksums
	recordsDir   = "records"       // in an unfinished export: one record per finished file
	partialDir   = "partial"       // in an unfinished export: files that are being written
)

// The names in the state directory.
func inState(name string) string   { return path.Join(stateDir, name) }
func partialOf(name string) string { return path.Join(stateDir, partialDir, name) }
func recordOf(name string) string  { return path.Join(stateDir, recordsDir, name+".json") }

// made returns the names that an export creates in the state directory, with their types.
func (m *Manifest) made() map[string]iofs.FileMode {
	made := map[string]iofs.FileMode{inState(manifestName): 0, inState(exportName): 0}
	for _, f := range m.Files {
		for _, name := range []string{partialOf(f.Name), recordOf(f.Name)} {
			made[name] = 0
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				made[dir] = iofs.ModeDir
			}
		}
	}
	return made
}

// survey returns an error if this export did not make everything in the state directory, or if a
// file of the tree has a name that something else uses.
func (w *writer) survey() error {
	if err := w.walkState(stateDir, w.refuseUnknown); err != nil {
		return err
	}
	for _, f := range w.manifest.Files {
		if _, err := w.dir.expect(f.Name, 0); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// refuseUnknown returns an error for a name that this export does not use.
func (w *writer) refuseUnknown(name string, known bool) error {
	if !known {
		return &ForeignError{w.dir.name(name),
			"is not of this export: remove it, or give another directory"}
	}
	return nil
}

// walkState visits everything below name in the state directory, and then name itself. A known
// name must have the type that an export creates. Unknown names are not opened.
func (w *writer) walkState(name string, visit func(name string, known bool) error) error {
	want, known := w.made[name]
	known = known || isTemp(path.Base(name))
	if !known {
		return visit(name, false)
	}
	if _, err := w.dir.expect(name, want); err != nil {
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
		return err
	}
	if want.IsDir() {
		err := w.dir.each(name, func(name string) error { return w.walkState(name, visit) })
		if err != nil {
			return err
		}
	}
	return visit(name, true)
}

// tidy removes the files of an unfinished export, and those that killed runs left behind.
func (w *writer) tidy() error {
	return w.walkState(stateDir, func(name string, known bool) error {
		switch {
		case !known || name == stateDir || name == inState(manifestName):
			return nil
		case w.made[name].IsDir(): // it stays if another process just created a file in it
			w.dir.remove(name, iofs.ModeDir)
			return nil
		}
		return w.dir.remove(name, 0)
	})
}
