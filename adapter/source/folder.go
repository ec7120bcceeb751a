package source

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// ErrLink says that a folder is a link to a folder. Such a link is not listed.
var ErrLink = errors.New("is a link")

var _ Store = (*folder)(nil)

// folder is a local folder, or a snapshot in the local cache of the Hub. Files outside its root are
// never opened, even if a link is changed meanwhile.
type folder struct {
	path   string      // the folder itself, without symlinks
	root   *os.Root    // the folder; for a snapshot the folder of its model
	inside string      // the folder's path in the root
	repo   *repository // that the snapshot is of; nil if the folder is not a snapshot
	follow bool

	closing sync.Mutex // guards closed and mounts
	closed  bool
	mounts  mountTable // for files that are being closed
}

// openFolder opens a directory.
func openFolder(path string, o Options) (*folder, error) {
	real, err := filepath.Abs(path)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return nil, cause(err)
	}
	d := &folder{path: real, inside: ".", follow: o.FollowLinks}
	root := real
	if d.repo = snapshotOf(real); d.repo != nil {
		root = filepath.Dir(filepath.Dir(real))
		d.inside = filepath.Join(filepath.Base(filepath.Dir(real)), filepath.Base(real))
	}
	if d.root, err = os.OpenRoot(root); err != nil {
		return nil, cause(err)
	}
	return d, nil
}

// Name is the path of the folder, without symlinks.
func (d *folder) Name() string { return d.path }

// Close ends the resolution of names. Open files stay open.
func (d *folder) Close() error {
	d.closing.Lock()
	d.closed = true
	d.closing.Unlock()
	return d.root.Close()
}

// List lists the folder or a subfolder of it.
func (d *folder) List(ctx context.Context, name string, most int) (Listing, error) {
	if err := ctx.Err(); err != nil {
		return Listing{}, err
	}
	path := d.within(name)
	if name != "." {
		info, err := d.root.Lstat(path)
		if err != nil {
			return Listing{}, cause(err)
		}
		if !info.IsDir() {
			return Listing{}, ErrLink
		}
	}
	l, err := d.list(path, most)
	return l, cause(err)
}

// list opens and lists a folder by its path in the root.
func (d *folder) list(path string, most int) (Listing, error) {
	f, err := d.root.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return Listing{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Listing{}, err
	}
	found, err := f.ReadDir(most)
	if err != nil && err != io.EOF {
		return Listing{}, err
	}
	l := Listing{Mode: info.Mode(), Entries: make([]Entry, len(found))}
	for i, e := range found {
		l.Entries[i] = Entry{Name: e.Name(), Dir: e.IsDir()}
	}
	slices.SortFunc(l.Entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return l, nil
}

// within returns the path in the root of a slash-separated name.
func (d *folder) within(name string) string {
	return filepath.Join(d.inside, filepath.FromSlash(name))
}

// Stat describes the target of a name in the root.
func (d *folder) Stat(ctx context.Context, name string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	info, err := d.root.Stat(d.within(name))
	if err == nil {
		return Info{info.Size(), info.Mode()}, nil
	}
	if dangling := d.dangling(name); dangling != nil {
		return Info{}, dangling
	}
	return Info{}, cause(err)
}

// dangling returns the error of a link without a target.
func (d *folder) dangling(name string) error {
	path := filepath.Join(d.path, filepath.FromSlash(name))
	target, err := os.Readlink(path)
	if err != nil {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return nowhere(target)
}

// nowhere is the error of a link whose target does not exist.
func nowhere(target string) error {
	return sayf(ErrMissing, "its link leads to %s, which does not exist", target)
}

// Open opens a regular file of the folder.
func (d *folder) Open(ctx context.Context, name string) (File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := d.openInside(d.within(name))
	if err != nil {
		file, err = d.openLinked(name, err)
	}
	if err != nil {
		return nil, err
	}
	f, err := newFile(d, name, file)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// openInside opens a path in the root. It checks the path before, because opening a device may have
// effects. newFile checks again afterwards.
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

// openLinked retries a name that could not be opened in the root. An absolute symlink may still
// lead to a file inside.
func (d *folder) openLinked(name string, failed error) (*os.File, error) {
	path := filepath.Join(d.path, filepath.FromSlash(name))
	target, err := os.Readlink(path)
	if err != nil {
		return nil, d.missing(failed)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, d.Download().Explain(nowhere(target))
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
	return nil, sayf(ErrOutsideLink,
		"its link leads to %s, outside of %s: put the file itself there", real, d.root.Name())
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

// missing turns an error about a file that does not exist into ErrMissing.
func (d *folder) missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return d.Download().Explain(ErrMissing)
	}
	return err
}

// Download returns the command for a snapshot, and whether a download into the folder was
// interrupted.
func (d *folder) Download() Download {
	if d.repo != nil {
		return Download{Command: d.repo.download(), Unfinished: true}
	}
	left, _ := filepath.Glob(filepath.Join(d.path, ".cache", "huggingface", "download", partial))
	return Download{Unfinished: len(left) > 0}
}
