package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Options change how a local store is opened. The zero value is right for most.
type Options struct {
	FollowLinks bool // follow symlinks out of the store
}

// Open opens a local store by name: a folder, or a repository in the local cache of the Hub
// ("org/name", "org/name@revision"). The name may also be that of one file. Then the store is the
// file's folder, and single is the file's name in it.
//
// Symlinks are followed inside a folder or, for a snapshot of the cache, inside the folder of its
// model. Other symlinks are refused unless o.FollowLinks is set.
func Open(name string, o Options) (s Store, single string, err error) {
	path, single, err := find(name)
	if err != nil {
		return nil, "", err
	}
	d, err := openFolder(path, o)
	if err != nil {
		return nil, "", err
	}
	return d, single, nil
}

// OpenHub opens a repository in the local cache of the Hub. An empty revision is main.
func OpenHub(id, revision string, o Options) (Store, error) {
	name := id
	if revision != "" {
		name += "@" + revision
	}
	repo, ok := parseRepository(name)
	if !ok {
		return nil, fmt.Errorf("%q is not the name of a repository: write org/name", name)
	}
	folder, err := repo.locate()
	if err != nil {
		return nil, err
	}
	d, err := openFolder(folder, o)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// find finds the folder to open. If the name is that of one file, it also returns the file's name.
func find(name string) (folder, single string, err error) {
	info, err := os.Stat(name)
	repo, isID := parseRepository(name)
	switch {
	case err == nil && info.IsDir():
		return name, "", nil
	case err == nil:
		return findFile(name, info)
	case errors.Is(err, fs.ErrNotExist) && isID:
		folder, err = repo.locate()
		return folder, "", err
	}
	return "", "", cause(err)
}

// findFile finds the folder of a single file. For a symlink it is the folder of the target, or the
// snapshot that the link is in.
func findFile(path string, info fs.FileInfo) (folder, single string, err error) {
	if err := regular(info.Mode()); err != nil {
		return "", "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", "", cause(err)
	}
	if snapshotOf(dir) == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", "", cause(err)
		}
	}
	return filepath.Dir(path), filepath.Base(path), nil
}
