package source

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

var _ Direct = (*localFile)(nil)

// direct is a second descriptor of a source file, which reads past the page cache.
type direct struct {
	mu   sync.Mutex
	fd   int  // of the open file; valid if open
	open bool // there is one
	off  bool // there can be none, as the file system says; any other failure is tried again
}

// ReadDirect reads like ReadAt, but past the page cache if it can and the bytes are not there already. The buffer's address
// and off have to be multiples of DirectAlign, and so has the buffer's length, which may reach beyond the end of the file.
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

// readDirect reads as much as it can of what is wanted.
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
			return n // who reads the rest sees what is wrong
		}
		n += got
		if n%DirectAlign != 0 {
			return n
		}
	}
	return n
}

// directly gives the descriptor to read a range with if that is not in the page cache.
func (f *localFile) directly(off, n int64) (fd int, ok bool) {
	if f.closed || n == 0 || f.cached(off, n) {
		return 0, false
	}
	d := &f.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open && !d.off {
		// The file that is open, not whatever has its name by now.
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.fd)), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		d.fd, d.open, d.off = fd, err == nil, err == unix.EINVAL || err == unix.EOPNOTSUPP
	}
	return d.fd, d.open && !d.off
}

func (d *direct) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// close closes the descriptor; nobody reads any more.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open {
		_ = unix.Close(d.fd) // it was only read
	}
	d.open, d.off = false, true
}

// Cached says whether most of a range is in the page cache. Where the system does not tell (before Linux 6.5, or
// of somebody else's file) it is believed not to be.
func (f *localFile) Cached(off, n int64) bool {
	f.use.RLock()
	defer f.use.RUnlock()
	return !f.closed && f.cached(off, n)
}

func (f *localFile) cached(off, n int64) bool {
	var s unix.Cachestat_t
	if unix.Cachestat(uint(f.fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &s, 0) != nil {
		return false
	}
	return int64(s.Cache)*int64(os.Getpagesize()) >= n/8*7
}
