package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"time"
)

// ReaderAtContext is an io.ReaderAt of a known size whose reads can be cancelled.
type ReaderAtContext interface {
	io.ReaderAt
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
	Size() int64
}

// lookup finds a node by path. op is the operation that an error names.
func (f *FS) lookup(op, name string) (*node, error) {
	if !iofs.ValidPath(name) {
		return nil, &iofs.PathError{Op: op, Path: name, Err: iofs.ErrInvalid}
	}
	n := f.find(name)
	if n == nil {
		return nil, &iofs.PathError{Op: op, Path: name, Err: iofs.ErrNotExist}
	}
	return n, nil
}

// Open opens a file or directory by its slash-separated path. Files are also io.ReaderAt and
// io.Seeker.
func (f *FS) Open(name string) (iofs.File, error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.content == nil {
		return &openDir{node: n, path: name}, nil
	}
	r := io.NewSectionReader(n.content, 0, n.content.Size())
	if c, ok := n.content.(*control); ok {
		if r, err = c.open(); err != nil {
			return nil, &iofs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return &openFile{node: n, SectionReader: r}, nil
}

// Stat describes a file or directory.
func (f *FS) Stat(name string) (iofs.FileInfo, error) {
	n, err := f.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return info{n, n.size()}, nil
}

// ReadDir lists a directory by name.
func (f *FS) ReadDir(name string) ([]iofs.DirEntry, error) {
	n, err := f.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if n.content != nil {
		return nil, &iofs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return n.entries(n.kids), nil
}

// ReaderAt opens a file for reads that can be cancelled.
func (f *FS) ReaderAt(name string) (ReaderAtContext, error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.content == nil {
		return nil, &iofs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
	}
	if c, ok := n.content.(*control); ok {
		r, err := c.open()
		if err != nil {
			return nil, &iofs.PathError{Op: "open", Path: name, Err: err}
		}
		return &section{fs: f, name: name, read: without(r), size: r.Size()}, nil
	}
	return n.content, nil
}

func (n *node) entries(kids []*node) []iofs.DirEntry {
	list := make([]iofs.DirEntry, len(kids))
	for i, kid := range kids {
		list[i] = iofs.FileInfoToDirEntry(info{kid, kid.size()})
	}
	return list
}

// info is the iofs.FileInfo of a node.
type info struct {
	n    *node
	size int64
}

func (i info) Name() string        { return i.n.name }
func (i info) Size() int64         { return i.size }
func (i info) Mode() iofs.FileMode { return i.n.mode }
func (i info) ModTime() time.Time  { return i.n.mtime }
func (i info) IsDir() bool         { return i.n.content == nil }
func (i info) Sys() any            { return nil }

// openFile is an open file. It reads and seeks through its section.
type openFile struct {
	node *node
	*io.SectionReader
}

func (o *openFile) Stat() (iofs.FileInfo, error) { return info{o.node, o.Size()}, nil }
func (o *openFile) Close() error                 { return nil }

// openDir is an open directory.
type openDir struct {
	node *node
	path string
	next int
}

func (o *openDir) Stat() (iofs.FileInfo, error) { return info{o.node, o.node.size()}, nil }
func (o *openDir) Close() error                 { return nil }

func (o *openDir) Read([]byte) (int, error) {
	return 0, &iofs.PathError{Op: "read", Path: o.path, Err: errors.New("is a directory")}
}

// ReadDir returns the next n entries, or the rest if n ≤ 0.
func (o *openDir) ReadDir(n int) ([]iofs.DirEntry, error) {
	rest := o.node.kids[o.next:]
	if n > 0 {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		rest = rest[:min(n, len(rest))]
	}
	o.next += len(rest)
	return o.node.entries(rest), nil
}
