package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// errExposed is ErrChanged for a file that was opened for writing.
var errExposed = fmt.Errorf("%w, or may have: a program has opened it for writing", ErrChanged)

var _ File = (*localFile)(nil)

// localFile is a file of a folder. It is opened once and read by position. Its name is not
// resolved again.
type localFile struct {
	in    *folder
	name  string
	file  *os.File
	fd    uintptr  // of file
	was   identity // when it was opened; ctime and links follow harmless changes
	proof proof    // about changes that size and times do not show

	direct  direct
	errands chan struct{} // has one entry for each errand under way

	use    sync.RWMutex // held for reading while the descriptor is used
	closed bool         // guarded by use, like last
	last   grant        // its grant when it was closed

	changes sync.Mutex // guards was, whose size and mtime never change
}

// identity is the attributes that identify a file while it is open.
type identity struct {
	size         int64
	mtime, ctime int64 // nanoseconds
	links        uint64
}

// newFile takes over an open file, which must be a regular one.
func newFile(in *folder, name string, file *os.File) (*localFile, error) {
	info, err := file.Stat()
	if err == nil {
		err = regular(info.Mode())
	}
	f := &localFile{
		in: in, name: name, file: file, fd: file.Fd(),
		errands: make(chan struct{}, maxErrands),
	}
	if err == nil {
		f.was, err = f.begin()
	}
	if err != nil {
		f.proof.end()
		_ = file.Close() // it was only read
		return nil, err
	}
	return f, nil
}

// Name is the file's name in the folder, for messages.
func (f *localFile) Name() string { return f.name }

// Size is the file's length in bytes when it was opened.
func (f *localFile) Size() int64 { return f.was.size }

// ModTime is when the file was modified before it was opened.
func (f *localFile) ModTime() time.Time { return time.Unix(0, f.was.mtime) }

// Mode returns the permission bits, or none if they are unknown.
func (f *localFile) Mode() fs.FileMode {
	f.use.RLock()
	defer f.use.RUnlock()
	info, err := f.file.Stat()
	if err != nil {
		return 0
	}
	return info.Mode().Perm()
}

// ReadAt reads bytes of the file as it was when it was opened, or fails. It checks the file after
// it has read, so it sees any change before that. The error is then ErrChanged. Errors are not
// remembered.
func (f *localFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", f.name, err)
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", f.name, off)
	}
	var end error
	if rest := max(f.was.size-off, 0); int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	n, err := f.readFor(ctx, p, off)
	if err != nil {
		return n, fmt.Errorf("%s: %w", f.name, err)
	}
	return n, end
}

// readFor fills p, which is inside the file. Local disks answer, so a read of them never ends
// early. A reader that can leave costs a goroutine and a copy of the bytes.
func (f *localFile) readFor(ctx context.Context, p []byte, off int64) (int, error) {
	if ctx == context.Background() || len(p) == 0 || !f.mayStall() {
		return f.readNow(p, off)
	}
	return f.readPatiently(ctx, p, off)
}

// readNow fills p, which is inside the file.
func (f *localFile) readNow(p []byte, off int64) (int, error) {
	f.use.RLock()
	defer f.use.RUnlock()
	return f.read(p, off)
}

// read fills p, which is inside the file. The caller holds f.use.
func (f *localFile) read(p []byte, off int64) (int, error) {
	n, err := 0, error(nil)
	if len(p) > 0 {
		n, err = f.file.ReadAt(p, off)
	}
	if changed := f.check(); changed != nil {
		return 0, changed
	}
	if n < len(p) && (err == nil || err == io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, cause(err)
}

// Check fails with ErrChanged if the file may have changed since it was opened.
func (f *localFile) Check() error {
	f.use.RLock()
	defer f.use.RUnlock()
	if err := f.check(); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// check is Check for callers that hold f.use.
func (f *localFile) check() error {
	if f.closed {
		return os.ErrClosed
	}
	now, err := identify(f)
	if err != nil {
		return cause(err)
	}
	if f.proof.exposed() {
		return errExposed
	}
	f.changes.Lock()
	defer f.changes.Unlock()
	switch {
	case now == f.was:
		return nil
	case now.size == f.was.size && now.mtime == f.was.mtime && f.proof.harmless(now):
		f.was.ctime, f.was.links = now.ctime, now.links
		return nil
	}
	return ErrChanged
}

// Close closes the file after running reads have ended.
func (f *localFile) Close() error {
	f.use.Lock()
	defer f.use.Unlock()
	if f.closed {
		return nil
	}
	f.last = f.in.lastGrant(f)
	f.closed = true
	f.proof.end()
	f.direct.close()
	return f.file.Close()
}

// Unseen names the changes that reads would not notice, the reason, and the fix.
func (f *localFile) Unseen() string { return f.proof.unseen() }

// cause drops the operation and the path from an error of package os. Messages begin with the name
// of the file in the source instead.
func cause(err error) error {
	if err == nil {
		return nil
	}
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// regular refuses all files that are not regular.
func regular(mode os.FileMode) error {
	for _, t := range []struct {
		bit  os.FileMode
		name string
	}{
		{os.ModeDir, "a directory"},
		{os.ModeNamedPipe, "a named pipe"},
		{os.ModeSocket, "a socket"},
		{os.ModeDevice, "a device"},
		{os.ModeType, "something else"},
	} {
		if mode&t.bit != 0 {
			return fmt.Errorf("%s where a regular file should be", t.name)
		}
	}
	return nil
}
