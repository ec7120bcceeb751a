// Package source reads checkpoints where they are stored.
//
// A [Store] is a place with files, such as a folder. A [File] is one open file of it. Everything
// above this package reads through these two interfaces, so a new kind of place needs one new
// implementation and no change elsewhere.
//
// There are two stores. [OpenFolder] opens a local folder. [OpenHub] opens a repository in the
// local cache of the Hugging Face Hub. Neither opens a network connection.
//
// # Reading
//
// A File is safe for concurrent use, and its dynamic type is comparable, so it can be a key of a
// map. [File.ReadAt] follows [io.ReaderAt]: fewer bytes than asked for come with an error, and
// [io.EOF] is that error only at the end of the file. After it returns, nothing touches the buffer.
//
// The context of a read is the patience of its reader. When the context ends, ReadAt returns its
// error soon, even if the source never answers. Some contexts have no channel that tells of their
// end, so ReadAt also asks [context.Context.Err] now and then. A read with
// [context.Background] waits for as long as it takes, which saves a copy of the bytes.
//
// # Identity
//
// A File gives the bytes of one version of its file, or an error. Size and ModTime are those of
// that version. ReadAt checks the identity after it has read. The error is [ErrChanged] if the file
// may be a different one by then. A caller that keeps bytes asks [File.Check] before it uses them
// again. Errors are not remembered: a file that is put back can be read again.
//
// Some changes leave no trace on some file systems. [File.Unseen] names them, so that people can
// be told.
//
// # Access
//
// Programs that pass bytes on must not show them to users who cannot read the source.
// [File.Access] and [Store.Access] say who can. What cannot be found out grants nothing: the zero
// [Access] admits no user.
//
// # Errors
//
// An error begins with the name of the file, and wraps [ErrChanged], [ErrMissing],
// [ErrOutsideLink] or [ErrIncomplete] where one of them fits.
//
// # Adding a store
//
// Implement Store and File, and pass the store to adapter.OpenStore. All methods are required,
// because each of them carries a promise:
//   - Open finds a file once, and pins its version. It refuses what is not a regular file.
//   - ReadAt and Check compare with that version. An implementation that cannot do so must not
//     report success.
//   - Mode and Access never grant more than the store itself grants to other users.
//   - Errors wrap the kinds above.
//
// The interface [Direct] is optional. It only makes reading faster.
package source

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// File is an open file of a store. It is safe for concurrent use, and its dynamic type is
// comparable.
type File interface {
	Name() string       // slash-separated, in the store; for messages
	Size() int64        // in bytes, when the file was opened
	Mode() fs.FileMode  // permission bits; none if they are not known
	ModTime() time.Time // when the file was modified before it was opened

	// ReadAt reads like io.ReaderAt, and ends early if ctx does. It fails with ErrChanged if the
	// file may be a different one by the time it was read.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)

	// Check fails with ErrChanged if the file may be a different one by now.
	Check() error

	// Unseen names changes that ReadAt and Check would not notice, and the way out. It is empty
	// if there are none.
	Unseen() string

	// Access says who may read the file by its name. It may be called after Close. A file that
	// outlives its store and is then closed admits no user.
	Access(l *Lookup) *Access

	// Close ends the use of the file. It waits for reads that run.
	Close() error
}

// Reader gives an io.ReaderAt that reads a file with a context.
func Reader(ctx context.Context, f File) io.ReaderAt { return reader{ctx, f} }

type reader struct {
	ctx context.Context
	f   File
}

func (r reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(r.ctx, p, off) }

// Store is a place with files. It is safe for concurrent use.
type Store interface {
	Name() string // for messages, such as the path of a folder

	// List lists a folder, which is "." for that of the store itself. It gives at most the number
	// of entries asked for. Links to folders are refused, because they may form a cycle.
	List(ctx context.Context, folder string, most int) (Listing, error)

	// Stat says what a name leads to, without opening it.
	Stat(ctx context.Context, name string) (Info, error)

	// Open opens a regular file by its slash-separated name.
	Open(ctx context.Context, name string) (File, error)

	// Access says who may use a folder of the store.
	Access(l *Lookup, folder string) FolderAccess

	// Download describes how the files of the store got there.
	Download() Download

	// Close ends the use of the store. Files that were opened stay open.
	Close() error
}

// Listing is the content of a folder.
type Listing struct {
	Mode    fs.FileMode // of the folder
	Entries []Entry     // by name
}

// Entry is one name of a folder.
type Entry struct {
	Name string
	Dir  bool // it is a folder; false for a link to one
}

// Info is what Store.Stat tells of a name.
type Info struct {
	Size int64
	Mode fs.FileMode
}
