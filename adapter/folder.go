package adapter

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEntries is how many files a source's folder may have.
const maxEntries = 100_000

// folder is where a source's files are opened. Nothing outside its root is, wherever
// symlinks lead, and also when one is changed meanwhile.
type folder struct {
	path    string      // the folder itself, without symlinks
	root    *os.Root    // the folder, or for a snapshot in the Hub's cache the model's folder in it
	inside  string      // the folder's path in the root
	entries []string    // names in the folder, sorted
	repo    *repository // what the snapshot is of; nil if the folder is none
	follow  bool
	logger  *slog.Logger
	fits    func(bytes int64) error
	grants  []grant // of the files that were read
}

// openFolder opens a directory.
func openFolder(path string, o OpenOptions) (*folder, error) {
	real, err := filepath.Abs(path)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return nil, cause(err)
	}
	d := &folder{path: real, inside: ".", follow: o.FollowLinks, logger: o.Logger, fits: o.Fits}
	root := real
	if d.repo = snapshotOf(real); d.repo != nil {
		root = filepath.Dir(filepath.Dir(real))
		d.inside = filepath.Join(filepath.Base(filepath.Dir(real)), filepath.Base(real))
	}
	if d.root, err = os.OpenRoot(root); err != nil {
		return nil, cause(err)
	}
	if err := d.list(); err != nil {
		d.close()
		return nil, cause(err)
	}
	return d, nil
}

// list reads the names in the folder.
func (d *folder) list() error {
	f, err := d.root.Open(d.inside)
	if err != nil {
		return err
	}
	defer f.Close()
	d.entries, err = f.Readdirnames(maxEntries + 1)
	if err != nil && err != io.EOF {
		return err
	}
	if len(d.entries) > maxEntries {
		return fmt.Errorf("more than %d files: not a checkpoint's folder", maxEntries)
	}
	slices.Sort(d.entries)
	return nil
}

// close ends the resolution of names; files that were opened stay open.
func (d *folder) close() { _ = d.root.Close() }

// has says whether there is an entry of that name, whatever it is.
func (d *folder) has(name string) bool {
	_, ok := slices.BinarySearch(d.entries, name)
	return ok
}

// open opens a regular file of the folder.
func (d *folder) open(name string) (*sourceFile, error) {
	file, err := d.openInside(filepath.Join(d.inside, name))
	if err != nil {
		file, err = d.openLinked(name, err)
	}
	if err != nil {
		return nil, err
	}
	return newSourceFile(name, file)
}

// openInside opens a path in the root. What it is is looked at before, since opening a
// device may do something, and by newSourceFile once more after.
func (d *folder) openInside(path string) (*os.File, error) {
	info, err := d.root.Stat(path)
	if err == nil {
		err = regular(info.Mode())
	}
	if err != nil {
		return nil, cause(err)
	}
	file, err := d.root.OpenFile(path, os.O_RDONLY|nonblock, 0)
	return file, cause(err)
}

// openLinked looks again at a name that could not be opened in the root: an absolute
// symlink may still lead to a file inside.
func (d *folder) openLinked(name string, failed error) (*os.File, error) {
	path := filepath.Join(d.path, name)
	target, err := os.Readlink(path)
	if err != nil {
		return nil, d.missing(failed)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, d.incomplete(fmt.Errorf("its link leads to %s, which does not exist", target))
		}
		return nil, cause(err)
	}
	rel, err := filepath.Rel(d.root.Name(), real)
	switch {
	case err == nil && filepath.IsLocal(rel):
		return d.openInside(rel)
	case d.follow:
		return openRegular(real)
	}
	return nil, fmt.Errorf("its link leads to %s, outside of %s: put the file itself there", real, d.root.Name())
}

// openRegular opens a path that may be anywhere.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = regular(info.Mode())
	}
	if err != nil {
		return nil, cause(err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	return file, cause(err)
}

// dangling says where a link of the folder leads if nothing is there.
func (d *folder) dangling(name string) error {
	path := filepath.Join(d.path, name)
	target, err := os.Readlink(path)
	if err != nil {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("its link leads to %s, which does not exist", target)
}

// size is a file's size, as far as it can be told without opening it.
func (d *folder) size(name string) (n int64, ok bool) {
	info, err := d.root.Stat(filepath.Join(d.inside, name))
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// missing says so of a file that is not there.
func (d *folder) missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return d.incomplete(errors.New("missing"))
	}
	return err
}

// incomplete adds how to finish a download to an error that looks like an unfinished one.
func (d *folder) incomplete(err error) error {
	if d.repo != nil {
		return fmt.Errorf("%w: the download is not finished: run %s", err, d.repo.download())
	}
	if unfinished, _ := filepath.Glob(filepath.Join(d.path, ".cache", "huggingface", "download", "*.incomplete")); len(unfinished) > 0 {
		return fmt.Errorf("%w: a download into this folder is not finished: run its hf download again", err)
	}
	return err
}

// read reads a small file.
func (d *folder) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.close()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes: more than %d are not read", name, f.Size(), limit)
	}
	if d.fits != nil {
		if err := d.fits(f.Size()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	data := make([]byte, f.Size())
	_, err = f.ReadAt(data, 0)
	d.grants = append(d.grants, f.grant(new(mountTable)))
	return data, err
}

// isFileName says whether a name is one that can be shown: no path, no hidden file,
// nothing that a terminal or a file system would take for something else.
func isFileName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && utf8.ValidString(name) &&
		!strings.ContainsAny(name, `/\`) && !strings.ContainsFunc(name, unicode.IsControl)
}
