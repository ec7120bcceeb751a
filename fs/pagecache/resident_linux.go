package pagecache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Resident returns how many bytes of a range of a file are in memory. It does not read the file.
// The range consists of whole pages, and the last of them ends with the file.
func Resident(f *os.File, r Range) (int64, error) {
	if err := mayAsk(f); err != nil {
		return 0, err
	}
	var bytes int64
	for end := r.Off + r.Len; r.Off < end; r.Off += mapStep {
		part := Range{r.Off, min(mapStep, end-r.Off)}
		none, err := nothing(f, part)
		if err != nil {
			return bytes, err
		}
		if none {
			continue
		}
		n, err := present(f, part)
		if bytes += n; err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

// present is Resident by mincore alone, for at most mapStep bytes.
func present(f *os.File, r Range) (int64, error) {
	pages, last, err := mincore(f, r)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name(), err)
	}
	page := int64(os.Getpagesize())
	if rest := r.Len % page; last && rest != 0 { // the end of the file cuts it
		return pages*page - page + rest, nil
	}
	return pages * page, nil
}

// without is set by tests: the kernel has no cachestat, as before 6.5.
var without atomic.Bool

// nothing reports whether cachestat says that no page of a range is in memory. That takes no time,
// however long the range is. Pages that cachestat counts may be empty: it cannot tell.
func nothing(f *os.File, r Range) (bool, error) {
	if r.Len <= 0 || without.Load() {
		return r.Len <= 0, nil
	}
	var s unix.Cachestat_t
	in := unix.CachestatRange{Off: uint64(r.Off), Len: uint64(r.Len)}
	err := unix.Cachestat(uint(f.Fd()), &in, &s, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return false, fmt.Errorf("%s: %w", f.Name(), ErrSecret)
	}
	return err == nil && s.Cache == 0, nil // with another error, mincore answers
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

// mapStep is how much of a file is looked at at once. mincore takes time for pages that are not in
// memory too.
const mapStep = 32 << 20

// mincore counts the pages of a range in memory, and reports whether its last page is.
func mincore(f *os.File, r Range) (pages int64, last bool, err error) {
	m, err := unix.Mmap(int(f.Fd()), r.Off, int(r.Len), unix.PROT_READ, unix.MAP_SHARED)
	if errors.Is(err, unix.ENODEV) {
		return 0, false, nil // its file system reads past the page cache
	}
	if err != nil {
		return 0, false, err
	}
	page := int64(os.Getpagesize())
	seen := make([]byte, (r.Len+page-1)/page)
	if err := errors.Join(mincoreOf(m, seen), unix.Munmap(m)); err != nil {
		return 0, false, err
	}
	for _, b := range seen {
		pages += int64(b & 1)
	}
	return pages, seen[len(seen)-1]&1 != 0, nil
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

// Sampling reads the state of so many bytes at most, in pieces of this size.
const (
	sampled    = 4 << 30
	samplePart = 1 << 20
)

// Estimate returns about how much of these files is in memory, and whether that is exact. It looks
// at 4 GiB of them at most, which takes a tenth of a second, in pieces at random places.
func Estimate(ctx context.Context, files []File) (bytes int64, exact bool, err error) {
	return estimate(ctx, files, sampled)
}

func estimate(ctx context.Context, files []File, most int64) (bytes int64, exact bool, err error) {
	var total, looked int64
	for _, f := range files {
		total += f.Size()
	}
	if total > most {
		files = sample(files, (total+most-1)/most)
	}
	for _, f := range files {
		looked += f.Size()
	}
	all, err := Check(ctx, files)
	for _, h := range all {
		bytes += h.InMem
	}
	if looked < total {
		bytes = int64(float64(bytes) / float64(looked) * float64(total))
	}
	return bytes, looked == total, err
}

// sample returns one of every nth piece of the files, at a random place among the n. Places at
// equal distances could always meet the same tensors.
func sample(files []File, n int64) []File {
	rng := rand.New(rand.NewPCG(1, 1)) // the same places each time
	fewer := make([]File, len(files))
	for i, f := range files {
		fewer[i].Name = f.Name
		for _, r := range f.Ranges {
			for at := int64(0); at < r.Len; at += n * samplePart {
				off := at + rng.Int64N(n)*samplePart
				if part := min(samplePart, r.Len-off); part > 0 {
					fewer[i].Ranges = append(fewer[i].Ranges, Range{r.Off + off, part})
				}
			}
		}
	}
	return fewer
}
