// Package source reads checkpoints where they are stored.
//
// A [Store] is a place with files, such as a folder. A [File] is one open file of it. All other
// packages read through these two interfaces. A new kind of place needs one implementation and no
// other change.
//
// [Open] opens a local folder, or a repository in the local cache of the Hugging Face Hub.
// [OpenHub] opens only the latter. Neither opens a network connection.
//
// # Reading
//
// A File is safe for concurrent use. Its dynamic type is comparable, so it can be a key of a map.
// [File.ReadAt] follows [io.ReaderAt]: a short read comes with an error, and the error is [io.EOF]
// only at the end of the file. After it has returned, the buffer is not touched.
//
// The context of a read limits how long it waits. When the context ends, ReadAt soon returns its
// error, even if the source never answers. Some contexts have no Done channel, so ReadAt also polls
// [context.Context.Err]. A read with [context.Background] waits without a limit, which saves a copy
// of the bytes. So does a read of a local disk.
//
// # Identity
//
// A File returns the bytes of one version of its file, or an error. Size and ModTime are those of
// that version. ReadAt checks the identity after it has read. The error is [ErrChanged] if the file
// may have changed. A caller that keeps bytes calls [File.Check] before it uses them again. Errors
// are not remembered: a restored file can be read again.
//
// Some changes leave no trace on some file systems. [File.Unseen] names them for messages.
//
// # Access
//
// Programs that pass bytes on must not show them to users who cannot read the source. [File.Access]
// and [Store.Access] return the users who can. Unknown permissions grant nothing: the zero [Access]
// admits no user.
//
// # Errors
//
// An error begins with the name of the file. It wraps [ErrChanged], [ErrMissing], [ErrOutsideLink]
// or [ErrIncomplete] if one of them fits.
//
// # Adding a store
//
// Implement Store and File, and pass the store to adapter.OpenStore. All methods are required,
// because each of them carries a promise:
//   - Open finds a file once, and pins its version. It refuses all files that are not regular.
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

// Exchanged are blocks that a program gave to another file with an ioctl, which keeps its times.
const Exchanged = "blocks that are exchanged with another file"

// File is an open file of a store. It is safe for concurrent use, and its dynamic type is
// comparable.
type File interface {
	Name() string       // slash-separated, in the store; for messages
	Size() int64        // in bytes, when the file was opened
	Mode() fs.FileMode  // permission bits; none if they are not known
	ModTime() time.Time // time of the last modification before it was opened

	// ReadAt reads like io.ReaderAt, and ends early if ctx does. It fails with ErrChanged if the
	// file may have changed before the read ended.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)

	// Check fails with ErrChanged if the file may have changed.
	Check() error

	// Unseen names changes that ReadAt and Check would not notice, such as Exchanged, and the fix.
	// It is empty if there are none.
	Unseen() string

	// Access returns the users who may read the file by its name. It may be called after Close. A
	// file that outlives its store and is then closed admits no user.
	Access(l *Lookup) *Access

	// Close closes the file. It waits for running reads.
	Close() error
}

// Reader returns an io.ReaderAt that reads a file with a context.
func Reader(ctx context.Context, f File) io.ReaderAt { return reader{ctx, f} }

type reader struct {
	ctx context.Context
	f   File
}

func (r reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(r.ctx, p, off) }

// Store is a place with files. It is safe for concurrent use.
type Store interface {
	Name() string // for messages, such as the path of a folder

	// List lists a folder. The folder of the store itself is ".". It returns at most the given
	// number of entries. Links to folders are refused, because they may form a cycle.
	List(ctx context.Context, folder string, most int) (Listing, error)

	// Stat describes the target of a name without opening it.
	Stat(ctx context.Context, name string) (Info, error)

	// Open opens a regular file by its slash-separated name.
	Open(ctx context.Context, name string) (File, error)

	// Access returns the users who may use a folder of the store.
	Access(l *Lookup, folder string) FolderAccess

	// Download describes how the files of the store were downloaded.
	Download() Download

	// Close closes the store. Open files stay open.
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

// Info is the result of Store.Stat.
type Info struct {
	Size int64
	Mode fs.FileMode
}
