package export

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/readback"
)

// directory is the directory that an export is written to.
//
// Another user may have prepared it with links, FIFOs or devices under the names of an export.
// Writing to these changes other files, or blocks. So a file is created only under a free name, and
// opened again only if it is a regular file.
//
// Names are slash-separated and relative to the directory. os.Root keeps all calls below it, even
// if parts of it are exchanged meanwhile. os.Root follows links within the directory; this type
// refuses them.
type directory struct {
	root *os.Root
	path string
}

// openDirectory opens a directory, and creates it if it is missing. The path may be a link.
func openDirectory(dir string) (*directory, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	// With a separator at the end, opening a FIFO fails and does not block.
	root, err := os.OpenRoot(filepath.Clean(dir) + string(filepath.Separator))
	if err != nil {
		return nil, err
	}
	return &directory{root: root, path: dir}, nil
}

func (d *directory) close() { d.root.Close() }

// name returns the whole path of a file, for messages.
func (d *directory) name(name string) string {
	return filepath.Join(d.path, filepath.FromSlash(name))
}

// whole puts the whole path into an error of os.Root, which has the relative path.
func (d *directory) whole(err error) error {
	var one *iofs.PathError
	var two *os.LinkError
	switch {
	case errors.As(err, &one):
		one.Path = d.name(one.Path)
	case errors.As(err, &two):
		two.Old, two.New = d.name(two.Old), d.name(two.New)
	}
	return err
}

// stat describes a file or directory. It returns an error if a directory above it is a link.
func (d *directory) stat(name string) (iofs.FileInfo, error) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := d.root.Lstat(filepath.FromSlash(name[:i]))
		if err != nil {
			return nil, d.whole(err)
		}
		if !info.IsDir() {
			return nil, wrongKind(d.name(name[:i]), info.Mode())
		}
	}
	info, err := d.root.Lstat(filepath.FromSlash(name))
	return info, d.whole(err)
}

// expect describes a file or directory, and returns an error if it has another type than want. For
// a regular file, want is 0.
func (d *directory) expect(name string, want iofs.FileMode) (iofs.FileInfo, error) {
	info, err := d.stat(name)
	if err == nil && info.Mode().Type() != want {
		return nil, wrongKind(d.name(name), info.Mode())
	}
	return info, err
}

// open opens a regular file that exists.
func (d *directory) open(name string, flag int) (*os.File, error) {
	info, err := d.expect(name, 0)
	if err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(filepath.FromSlash(name), flag|readback.Nonblock, 0)
	if err != nil {
		return nil, d.whole(err)
	}
	if err := d.same(f, info, name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// same returns an error if another file replaced the expected one before it was opened.
func (d *directory) same(f *os.File, want iofs.FileInfo, name string) error {
	opened, err := f.Stat()
	if err == nil && !os.SameFile(want, opened) {
		err = fmt.Errorf("%s was exchanged just now: run the export again", d.name(name))
	}
	return err
}

// create creates a file under a free name.
func (d *directory) create(name string) (*os.File, error) {
	if err := d.free(name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	return f, d.whole(err)
}

// free returns an error if a name is in use.
func (d *directory) free(name string) error {
	_, err := d.stat(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = &iofs.PathError{Op: "create", Path: d.name(name), Err: iofs.ErrExist}
	}
	return err
}

// mkdir creates a directory and those above it, where they are missing.
func (d *directory) mkdir(name string) error {
	if name == "." {
		return nil
	}
	_, err := d.expect(name, iofs.ModeDir)
	if !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if err := d.mkdir(path.Dir(name)); err != nil {
		return err
	}
	err = d.root.Mkdir(filepath.FromSlash(name), 0o777)
	if errors.Is(err, iofs.ErrExist) { // another part was faster
		_, err = d.expect(name, iofs.ModeDir)
	}
	return d.whole(err)
}

// rename renames a file. It replaces a regular file of that name, and nothing else.
func (d *directory) rename(from, to string) error {
	if _, err := d.expect(to, 0); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return d.whole(d.root.Rename(filepath.FromSlash(from), filepath.FromSlash(to)))
}

// renameFree renames a file if the new name is free. If the file system has no hard links, it may
// replace a file that was created meanwhile.
func (d *directory) renameFree(from, to string) error {
	err := d.whole(d.root.Link(filepath.FromSlash(from), filepath.FromSlash(to)))
	if err != nil && !errors.Is(err, iofs.ErrExist) {
		err = d.rename(from, to)
	}
	if errors.Is(err, iofs.ErrExist) {
		return nil
	}
	return err
}

// remove removes a file or an empty directory, if it exists.
func (d *directory) remove(name string, want iofs.FileMode) error {
	_, err := d.expect(name, want)
	if err == nil {
		err = d.whole(d.root.Remove(filepath.FromSlash(name)))
	}
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	return err
}

// each visits the names in a directory, in no order. A missing directory has no names.
func (d *directory) each(dir string, visit func(name string) error) error {
	f, err := d.openDir(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		var names []string
		names, err = f.Readdirnames(1000) // a few at a time: a directory may be large
		for _, name := range names {
			if err := visit(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// openDir opens a directory that is not a link.
func (d *directory) openDir(name string) (*os.File, error) {
	if _, err := d.expect(name, iofs.ModeDir); err != nil {
		return nil, err
	}
	f, err := d.root.Open(filepath.FromSlash(name))
	return f, d.whole(err)
}

// sync brings the names in a directory to disk.
func (d *directory) sync(name string) error {
	f, err := d.openDir(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncDir(f)
}

// replace writes a file. After a crash, the old or the new file is there as a whole.
func (d *directory) replace(name string, data []byte) error {
	if err := d.mkdir(path.Dir(name)); err != nil {
		return err
	}
	temp, err := d.writeTemp(path.Dir(name), data)
	if err != nil {
		return err
	}
	if err := d.rename(temp, name); err != nil {
		return errors.Join(err, d.remove(temp, 0))
	}
	return d.sync(path.Dir(name))
}

// tempPrefix begins the names of temporary files.
const tempPrefix = ".new-"

// isTemp reports whether a name is one that writeTemp chooses.
func isTemp(name string) bool {
	number, ok := strings.CutPrefix(name, tempPrefix)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// writeTemp writes data to disk under a random name.
func (d *directory) writeTemp(dir string, data []byte) (name string, err error) {
	name = path.Join(dir, fmt.Sprint(tempPrefix, rand.Uint32()))
	f, err := d.create(name)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, syncFile(f), f.Close()); err != nil {
		return "", errors.Join(err, d.remove(name, 0))
	}
	return name, nil
}

// canRename returns an error if files cannot be renamed from one directory to another. Some file
// systems refuse that. It is called before the work begins.
func (d *directory) canRename(from, to string) error {
	if err := d.mkdir(to); err != nil {
		return err
	}
	temp, err := d.writeTemp(from, nil)
	if err != nil {
		return err
	}
	moved := path.Join(to, path.Base(temp))
	if err := d.rename(temp, moved); err != nil {
		d.remove(temp, 0)
		return fmt.Errorf("%s: files cannot be renamed there: %w: "+
			"export to a local disk, and copy from there", d.path, err)
	}
	return d.remove(moved, 0)
}
