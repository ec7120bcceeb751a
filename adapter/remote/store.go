package remote

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/source"
)

var _ source.Networked = (*store)(nil)

// store is a remote source.
type store struct {
	backend backend
	client  *client
	fetcher *fetcher
	disk    *disk // nil: none

	mu      sync.Mutex
	folders map[string][]object // that were listed
}

func newStore(b backend, c *client, o Options) *store {
	return &store{backend: b, client: c, fetcher: newFetcher(b, o), folders: map[string][]object{}}
}

// keep has blocks kept in a disk cache, if there is one.
func (s *store) keep(d *disk) {
	if d != nil {
		s.disk, s.fetcher.cache = d, d
	}
}

// Name is the source as it is opened again.
func (s *store) Name() string { return s.backend.name() }

// Download describes how the source is downloaded instead.
func (s *store) Download() source.Download { return s.backend.download() }

// Traffic counts what was transferred.
func (s *store) Traffic() source.Traffic { return s.fetcher.traffic() }

// Close ends all requests. Files that are open fail from then on.
func (s *store) Close() error {
	s.fetcher.close()
	s.client.close()
	if s.disk != nil {
		return s.disk.cache.Close()
	}
	return nil
}

// objects lists a folder. It asks the store once, so that a folder does not change while the
// checkpoint is opened.
func (s *store) objects(ctx context.Context, folder string, most int) ([]object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.folders[folder]; ok {
		return l[:min(len(l), most)], nil
	}
	l, err := s.backend.list(ctx, folder, most)
	if err != nil {
		return nil, clean(err)
	}
	s.folders[folder] = l
	return l, nil
}

// List lists a folder.
func (s *store) List(ctx context.Context, folder string, most int) (source.Listing, error) {
	objects, err := s.objects(ctx, path.Clean(folder), most)
	if err != nil {
		return source.Listing{}, err
	}
	l := source.Listing{Mode: fs.ModeDir | s.mode() | 0o111,
		Entries: make([]source.Entry, len(objects))}
	for i, o := range objects {
		l.Entries[i] = source.Entry{Name: path.Base(o.name), Dir: o.dir}
	}
	return l, nil
}

const mostObjects = 200_000 // of a folder

// find finds an object by its name in the listing of its folder.
func (s *store) find(ctx context.Context, name string) (*object, error) {
	objects, err := s.objects(ctx, path.Dir(path.Clean(name)), mostObjects)
	if err != nil {
		return nil, err
	}
	for i := range objects {
		if objects[i].name == path.Clean(name) {
			return &objects[i], nil
		}
	}
	return nil, source.ErrMissing
}

// Stat describes an object.
func (s *store) Stat(ctx context.Context, name string) (source.Info, error) {
	o, err := s.find(ctx, name)
	if err != nil {
		return source.Info{}, err
	}
	if o.dir {
		return source.Info{Mode: fs.ModeDir | s.mode() | 0o111}, nil
	}
	return source.Info{Size: o.size, Mode: s.mode()}, nil
}

// Open opens an object. It asks for nothing, since the listing has pinned it.
func (s *store) Open(ctx context.Context, name string) (source.File, error) {
	o, err := s.find(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case o.refused != nil:
		return nil, clean(o.refused)
	case o.dir:
		return nil, fmt.Errorf("a folder where a regular file should be")
	}
	return newFile(s, o), nil
}

// mode is the permission bits of all files. If credentials are used, the files are for the user who
// has them.
func (s *store) mode() fs.FileMode {
	if s.backend.public() {
		return 0o444
	}
	return 0o400
}

// access is who may read an object.
func (s *store) access(name string) *source.Access {
	if s.backend.public() {
		return source.Everyone(name)
	}
	return source.NoAccess(name, "is read with credentials")
}

// Access is who may use a folder.
func (s *store) Access(_ *source.Lookup, folder string) source.FolderAccess {
	a := s.access(folder)
	return source.FolderAccess{Enter: a, List: a}
}
