package serve

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

// repository is one view.
type repository struct {
	id       string
	commit   string
	files    []*file // by name
	byName   map[string]*file
	folders  map[string]bool
	modified time.Time
}

// file is one file of a repository.
type file struct {
	name string // in the repository
	size int64
	open fs.ReaderAtContext
	made string // the id of a file whose content is not hashed

	mu sync.Mutex
	id string // empty: not known yet
}

// maxHashed is the size of the largest file whose git id is computed.
const maxHashed = 64 << 20

// newRepository lists the files of a view.
func newRepository(tree *fs.FS, v fs.View, o Options, version string) (*repository, error) {
	r := &repository{
		id: o.Name + "/" + nameOf(v), byName: map[string]*file{},
		folders: map[string]bool{"": true},
	}
	root := path.Join(".", v.Dir)
	err := iofs.WalkDir(tree, root, func(name string, d iofs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		return r.add(tree, name, strings.TrimPrefix(strings.TrimPrefix(name, root), "/"), d)
	})
	if err != nil {
		return nil, err
	}
	r.commit = r.hash(v, o, version)
	for _, f := range r.files {
		f.made = digest("file", r.commit, f.name)
	}
	return r, nil
}

// nameOf returns the second part of the id of a view's repository: the layout and, if there are
// several, the rank.
func nameOf(v fs.View) string {
	layout := v.Plan.Options.Layout
	rest := strings.Trim(strings.TrimPrefix(v.Dir, layout), "/")
	if rest == "" {
		return layout
	}
	return layout + "-" + strings.ReplaceAll(rest, "/", "-")
}

// add adds a file or a folder. Its name in the tree is at.
func (r *repository) add(tree *fs.FS, at, name string, d iofs.DirEntry) error {
	if d.IsDir() {
		r.folders[name] = true
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	content, err := tree.ReaderAt(at)
	if err != nil {
		return err
	}
	f := &file{name: name, size: info.Size(), open: content}
	r.files = append(r.files, f)
	r.byName[name] = f
	if t := info.ModTime(); t.After(r.modified) {
		r.modified = t
	}
	return nil
}

// hash returns the commit.
func (r *repository) hash(v fs.View, o Options, version string) string {
	parts := []string{"commit", version, o.Version, fmt.Sprintf("%+v", v.Plan.Options)}
	for _, f := range r.files {
		parts = append(parts, f.name, fmt.Sprint(f.size))
	}
	return digest(parts...)
}

// digest returns 40 hexadecimal digits that stand for some texts.
func digest(parts ...string) string {
	h := sha1.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// identity returns the id of a file: the git id of a small one.
func (f *file) identity(ctx context.Context) (string, error) {
	if strings.HasSuffix(f.name, ".safetensors") || f.size > maxHashed {
		return f.made, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id != "" {
		return f.id, nil
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", f.size)
	if _, err := io.Copy(h, f.reader(ctx)); err != nil {
		return "", err
	}
	f.id = hex.EncodeToString(h.Sum(nil))
	return f.id, nil
}

// reader returns a reader of the content whose reads end with ctx.
func (f *file) reader(ctx context.Context) *io.SectionReader {
	return io.NewSectionReader(cancellable{ctx, f.open}, 0, f.size)
}

// cancellable is a reader with a context.
type cancellable struct {
	ctx context.Context
	r   fs.ReaderAtContext
}

// ReadAt reads until the context ends.
func (c cancellable) ReadAt(p []byte, off int64) (int, error) {
	return c.r.ReadAtContext(c.ctx, p, off)
}

// sortedFolders returns the names of the folders, without the root.
func (r *repository) sortedFolders() []string {
	var names []string
	for name := range r.folders {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
