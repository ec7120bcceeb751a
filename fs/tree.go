package fs

import (
	"cmp"
	"fmt"
	"hash/fnv"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// node is a file or directory. A node does not change after the tree is built.
type node struct {
	name    string
	ino     uint64
	mode    iofs.FileMode // type and permissions
	mtime   time.Time
	content content // nil for directories
	kids    []*node // listed, by name
	byName  map[string]*node
	subdirs int
	side    int    // number of the checkpoint's side file, from 1; 0: computed
	folder  string // path of the source's subfolder; empty: none
}

// content is the bytes of a file.
type content interface {
	ReaderAtContext
}

// builder collects the nodes of a tree.
type builder struct {
	fs    *FS
	mtime time.Time // of the newest source file
	perm  uint32    // permissions common to all source files
	inos  map[uint64]bool
	ranks map[string][]*node // files that ranks may share, by their headers

	hidden *node // the control directory
}

func newBuilder(f *FS) *builder {
	b := &builder{fs: f, mtime: time.Unix(0, 0), perm: 0o444,
		inos: map[uint64]bool{0: true, 1: true}, ranks: map[string][]*node{}}
	f.root = b.dir(".")
	f.root.ino = 1
	if f.checkpoint == nil {
		return b
	}
	seen := map[expr.File]bool{}
	for _, t := range f.checkpoint.Tensors() {
		if !seen[t.File] {
			seen[t.File] = true
			b.perm, _ = b.attributes(t.File, b.perm, b.mtime)
		}
	}
	return b
}

func (b *builder) dir(p string) *node {
	return &node{
		name: path.Base(p), ino: b.ino(p), mode: iofs.ModeDir | 0o555, byName: map[string]*node{},
	}
}

// ino returns the inode number of a path. It is the same at each start if the tree is the same.
func (b *builder) ino(p string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(p))
	n := h.Sum64() >> 1 // go-fuse keeps the upper half for itself
	for b.inos[n] {
		n++
	}
	b.inos[n] = true
	return n
}

// mkdir finds or makes the directory p. The root is "".
func (b *builder) mkdir(p string) (*node, error) {
	d := b.fs.root
	if p == "" {
		return d, nil
	}
	if !iofs.ValidPath(p) {
		return nil, fmt.Errorf("%q is not a valid name for a directory", p)
	}
	at := ""
	for name := range strings.SplitSeq(p, "/") {
		at = path.Join(at, name)
		kid := d.byName[name]
		if kid == nil {
			kid = b.dir(at)
			d.byName[name] = kid
			d.kids = append(d.kids, kid)
			d.subdirs++
		}
		if kid.content != nil {
			return nil, fmt.Errorf("%s is both a file and a directory", at)
		}
		d = kid
	}
	return d, nil
}

// file adds a file to the directory d, whose path is dir.
func (b *builder) file(d *node, dir, name string, c content, perm uint32, mtime time.Time) error {
	b.fs.size += c.Size()
	b.fs.files++
	return d.enter(dir, &node{
		name: name, ino: b.ino(path.Join(dir, name)), content: c,
		mode: iofs.FileMode(0o444 & perm), mtime: mtime,
	})
}

// enter adds a file to the directory d, whose path is dir.
func (d *node) enter(dir string, n *node) error {
	if d.byName[n.name] != nil {
		return fmt.Errorf("two files are named %s", path.Join(dir, n.name))
	}
	d.byName[n.name] = n
	d.kids = append(d.kids, n)
	return nil
}

// finish sorts directories. A node without a time gets the newest time of the source files.
func (b *builder) finish() {
	var walk func(n *node)
	walk = func(n *node) {
		if n.mtime.IsZero() {
			n.mtime = b.mtime
		}
		slices.SortFunc(n.kids, func(x, y *node) int { return cmp.Compare(x.name, y.name) })
		var before *file
		for _, kid := range n.kids {
			walk(kid)
			if f, ok := kid.content.(*file); ok {
				before.follow(f)
				before = f
			}
		}
		before.follow(nil)
	}
	walk(b.fs.root)
	walk(b.hidden)
}

// find returns the node at a path, or nil if there is none.
func (f *FS) find(name string) *node {
	n := f.root
	if name == "." {
		return n
	}
	for part := range strings.SplitSeq(name, "/") {
		if n = n.byName[part]; n == nil {
			return nil
		}
	}
	return n
}

// links returns the number of names that stat shows.
func (n *node) links() int {
	if f, ok := n.content.(*file); ok {
		return 1 + f.links
	}
	return 1
}

// size returns the size that stat shows.
func (n *node) size() int64 {
	if n.content == nil {
		return 4096
	}
	return n.content.Size()
}
