package diskcache

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names below the folder of a cache. The first has the version of the format.
const (
	blocksDir = "v1"
	tempDir   = blocksDir + "/tmp"
	lockName  = "lock"
)

// folder is the folder of a cache. Everything is named below its root, so no symlink leads out of
// it.
type folder struct {
	name string
	root *os.Root
	dir  *os.File
}

// openFolder opens the folder of a cache, and makes it if it may.
func openFolder(name string, create bool) (*folder, error) {
	if create {
		if err := os.MkdirAll(name, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	f := &folder{name, root, dir}
	info, err := dir.Stat()
	if err == nil {
		err = untrusted(info)
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// untrusted says why other users could have changed a file or folder. The cache would give their
// bytes to readers.
func untrusted(info fs.FileInfo) error {
	const instead = "who could change what is read from the cache: name another folder"
	uid, known := owner(info)
	switch {
	case !known:
	case uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, %s", uid, instead)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("its mode %v lets other users write, %s, or take the right away "+
			"with chmod go-w", info.Mode().Perm(), instead)
	}
	return nil
}

func (f *folder) close() error { return errors.Join(f.dir.Close(), f.root.Close()) }

// has reports whether there is a file for a block.
func (f *folder) has(b block) bool {
	info, err := f.root.Lstat(b.path())
	return err == nil && info.Mode().IsRegular() && info.Size() == fileSize(b.n)
}

// read fills p with bytes of a block, and returns when the block was used before.
func (f *folder) read(b block, p []byte, at int64) (used time.Time, err error) {
	file, err := f.root.OpenFile(b.path(), os.O_RDONLY|nonblock, 0)
	if err != nil {
		return used, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return used, err
	case !info.Mode().IsRegular():
		return used, fmt.Errorf("%w: it is not a regular file", errDamaged)
	case info.Size() != fileSize(b.n):
		return used, fmt.Errorf("%w: it has %d bytes instead of %d", errDamaged, info.Size(),
			fileSize(b.n))
	}
	if err := untrusted(info); err != nil {
		return used, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return info.ModTime(), b.read(file, p, at)
}

// host tells the temporary files of this machine from those of others.
var host = sync.OnceValue(func() string {
	name, _ := os.Hostname()
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:4])
})

// tempName makes the name of a temporary file, which says how many bytes it will have.
func tempName(size int64) string { return fmt.Sprintf("%d-%s-%s", size, host(), rand.Text()) }

// parseTemp reads the name of a temporary file. here reports whether it is of this machine.
func parseTemp(name string) (size int64, here, ok bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return 0, false, false
	}
	size, err := strconv.ParseInt(parts[0], 10, 64)
	return size, parts[1] == host(), err == nil && size > 0 && parts[2] != ""
}

// createTemp makes a temporary file, and holds it. Another process may take it for abandoned before
// it is held.
func (f *folder) createTemp(name string) (*os.File, error) {
	file, err := f.create(path.Join(tempDir, name))
	if err == nil && !hold(file) {
		return nil, errors.Join(errNoRoom, file.Close())
	}
	return file, err
}

// create makes a file and its directory.
func (f *folder) create(name string) (*os.File, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	file, err := f.root.OpenFile(name, flags, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return nil, err
	}
	return f.root.OpenFile(name, flags, 0o600)
}

// place gives a temporary file the name of its block. Other processes may remove the directory of
// an object as soon as it is empty, so it is made again a few times.
func (f *folder) place(temp string, b block) error {
	from, to := path.Join(tempDir, temp), b.path()
	err := f.root.Rename(from, to)
	for range 3 {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err = f.root.MkdirAll(path.Dir(to), 0o700); err == nil {
			err = f.root.Rename(from, to)
		}
	}
	if err != nil {
		f.root.Remove(from)
	}
	if isGone(err) { // it was the temporary file
		return errNoRoom
	}
	return err
}

// names lists a directory. A directory that is missing, or that is removed meanwhile, has none.
func (f *folder) names(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, unlessGone(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return names, unlessGone(err)
}

// isGone reports whether an error is that a file was removed. On NFS, an open file may be too.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
}

// unlessGone is an error, unless it is that a file was removed.
func unlessGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

// directory describes a directory, but not what a symlink leads to.
func (f *folder) directory(name string) (fs.FileInfo, bool) {
	info, err := f.root.Lstat(name)
	return info, err == nil && info.IsDir()
}

// isHex reports whether a name has so many digits of a hash.
func isHex(name string, digits int) bool {
	return len(name) == digits && strings.Trim(name, "0123456789abcdef") == ""
}
