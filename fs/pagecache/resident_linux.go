package pagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Resident returns how many bytes of a range of a file are in memory. It does not read the file.
// The range consists of whole pages, and the last of them ends with the file.
//
// Pages that are being read count too. The work is in proportion to the pages that are in memory.
func Resident(f *os.File, r Range) (int64, error) {
	if err := mayAsk(f); err != nil {
		return 0, err
	}
	page := int64(os.Getpagesize())
	rest := r.Len % page // of the page that the end of the file cuts
	pages, err := countPages(f, Range{r.Off, r.Len - rest})
	var last int64
	if err == nil {
		last, err = countPages(f, Range{r.Off + r.Len - rest, rest})
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return pages*page + last*rest, nil
}

// without is set by tests: the kernel has no cachestat, as before 6.5.
var without atomic.Bool

// countPages counts the pages of a range in memory. It asks cachestat. Mapping a file would drop
// its pages if the file was opened for direct reads by its file system.
func countPages(f *os.File, r Range) (int64, error) {
	if r.Len == 0 {
		return 0, nil
	}
	var s unix.Cachestat_t
	err := error(unix.ENOSYS)
	if !without.Load() {
		in := unix.CachestatRange{Off: uint64(r.Off), Len: uint64(r.Len)}
		err = unix.Cachestat(uint(f.Fd()), &in, &s, 0)
	}
	switch {
	case err == nil:
		return int64(s.Cache), nil
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return 0, ErrSecret
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP):
		return mincore(f, r)
	}
	return 0, err
}

// mayAsk fails if mincore would show every page as present, because this user does not own the
// file and may not write it.
func mayAsk(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	euid := os.Geteuid()
	if euid == 0 || int(st.Uid) == euid {
		return nil
	}
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if unix.Faccessat(unix.AT_FDCWD, self, unix.W_OK, unix.AT_EACCESS) != nil {
		return fmt.Errorf("%s: %w", f.Name(), ErrSecret)
	}
	return nil
}

// mapStep is how much of a file mincore maps at once.
const mapStep = 256 << 20

// mincore counts the pages of a range in memory.
func mincore(f *os.File, r Range) (pages int64, err error) {
	page := int64(os.Getpagesize())
	seen := make([]byte, mapStep/page)
	for end := r.Off + r.Len; r.Off < end; r.Off += mapStep {
		n := min(mapStep, end-r.Off)
		m, err := unix.Mmap(int(f.Fd()), r.Off, int(n), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return pages, err
		}
		part := seen[:(n+page-1)/page]
		err = mincoreOf(m, part)
		if err = errors.Join(err, unix.Munmap(m)); err != nil {
			return pages, err
		}
		for _, b := range part {
			pages += int64(b & 1)
		}
	}
	return pages, nil
}

// Check returns how much of each file is in memory, in the order of the files. It stops when ctx
// ends.
func Check(ctx context.Context, files []File) ([]Held, error) {
	all := make([]Held, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range files {
		all[i] = Held{Name: f.Name, Wanted: f.Size()}
		g.Go(func() error { return all[i].count(ctx, f.Ranges) })
	}
	return all, g.Wait()
}

// count counts what of these ranges is in memory.
func (h *Held) count(ctx context.Context, ranges []Range) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.Open(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range ranges {
		n, err := Resident(f, r)
		if err != nil {
			return err
		}
		h.InMem += n
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
