package source

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

var _ Direct = (*localFile)(nil)

// direct is a second descriptor of a source file that reads past the page cache.
type direct struct {
	mu   sync.Mutex
	fd   int  // of the open file; valid if open
	open bool // there is one
	off  bool // the file system has no direct reads; other failures are retried
}

// ReadDirect reads past the page cache, if that is possible and the bytes are not in the cache.
func (f *localFile) ReadDirect(p []byte, off int64) (int, error) {
	f.use.RLock()
	defer f.use.RUnlock()
	want := int(min(int64(len(p)), max(f.was.size-off, 0)))
	n := 0
	if fd, ok := f.directly(off, int64(want)); ok {
		n = f.readDirect(fd, p, off, want)
	}
	if n >= want {
		if err := f.check(); err != nil {
			return 0, fmt.Errorf("%s: %w", f.name, err)
		}
		return want, end(want < len(p))
	}
	rest, err := f.read(p[n:want], off+int64(n))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.name, err)
	}
	return n + rest, end(want < len(p))
}

func end(is bool) error {
	if is {
		return io.EOF
	}
	return nil
}

// readDirect reads as much as possible of the wanted bytes.
func (f *localFile) readDirect(fd int, p []byte, off int64, want int) (n int) {
	for n < want {
		got, err := unix.Pread(fd, p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL && n == 0:
			f.direct.refuse() // not on this filesystem, or not with this alignment
			return 0
		case err != nil || got <= 0:
			return n // the read of the rest finds the error
		}
		n += got
		if n%DirectAlign != 0 {
			return n
		}
	}
	return n
}

// directly returns a descriptor for a range that is not in the page cache.
func (f *localFile) directly(off, n int64) (fd int, ok bool) {
	if f.closed || n == 0 || f.cached(off, n) {
		return 0, false
	}
	d := &f.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open && !d.off {
		// Open the same file, since its name may now lead to another one.
		const flags = unix.O_RDONLY | unix.O_DIRECT | unix.O_CLOEXEC | unix.O_NONBLOCK
		fd, err := unix.Open(throughProc(int(f.fd)), flags, 0)
		d.fd, d.open, d.off = fd, err == nil, err == unix.EINVAL || err == unix.EOPNOTSUPP
	}
	return d.fd, d.open && !d.off
}

func (d *direct) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// close closes the descriptor. No reads are running.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open {
		_ = unix.Close(d.fd) // it was only read
	}
	d.open, d.off = false, true
}

// Cached reports whether most of a range is in the page cache. Before Linux 6.5, and for a file of
// another user, the system does not tell. Then the range counts as not cached.
func (f *localFile) Cached(off, n int64) bool {
	f.use.RLock()
	defer f.use.RUnlock()
	return !f.closed && f.cached(off, n)
}

func (f *localFile) cached(off, n int64) bool {
	var s unix.Cachestat_t
	where := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	if unix.Cachestat(uint(f.fd), &where, &s, 0) != nil {
		return false
	}
	return int64(s.Cache)*int64(os.Getpagesize()) >= n/8*7
}
