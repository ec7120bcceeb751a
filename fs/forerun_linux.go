package fs

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
)

// Distances of a forerun.
const (
	firstWindow = 64 << 20 // see forerun.window
	maxWindow   = 1 << 30
	storeSize   = 1 << 20  // bytes that are stored at once
	markEvery   = 16 << 20 // distance of the pages that a forerun leaves out
	pageSize    = 4096
)

// foreruns decode ahead of the loaders of a mount. A loader that maps files would otherwise wait
// for each window of the kernel's read-ahead.
//
// A forerun belongs to a stream of a loader. It decodes the rest of the file and then the files
// behind it, and stores the bytes in the kernel's page cache (FUSE_NOTIFY_STORE). It opens no file
// of the mount, so it neither keeps the mount busy nor waits for it.
//
// The kernel answers readers from its cache without a word. So a forerun leaves out one page in
// every markEvery bytes. The READ of such a page, a mark, shows how far the loader has come.
type foreruns struct {
	fs     *FS
	ctx    context.Context
	cancel context.CancelFunc
	path   func(name string) string // of a file of the tree in the mount; nil: it has no path
	gap    int64                    // what the kernel reads ahead by itself
	inodes sync.Map                 // *file → *gofs.Inode
	dirs   map[*file]*shelf

	mu      sync.Mutex
	list    []*forerun
	running int // goroutines
	done    sync.WaitGroup

	stored, errors atomic.Int64 // bytes; failures
}

// shelf is the files of a view, in the order of their names.
type shelf struct {
	files []*file
	begin []int64 // of each file, as if they were one behind the other
	size  int64
	seen  bool // the kernel knows the files
}

// forerun decodes ahead of one stream. Offsets are those of its shelf.
type forerun struct {
	shelf   *shelf
	next    int64 // what is stored next
	reached int64 // what the loader has read
	window  int64 // how far next may be ahead of reached
	start   int64 // clock when it began
	clock   int64 // of the last sign of the loader
}

// newForeruns makes the foreruns of a mount. gap is what the kernel reads ahead by itself.
func (f *FS) newForeruns(path func(string) string, gap int64) *foreruns {
	r := &foreruns{fs: f, path: path, gap: gap, dirs: map[*file]*shelf{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	byDir := map[string]*shelf{}
	f.eachFile(func(dir string, v *file) {
		s := byDir[dir]
		if s == nil {
			s = &shelf{}
			byDir[dir] = s
		}
		s.files = append(s.files, v)
		r.dirs[v] = s
	})
	for _, s := range byDir {
		slices.SortFunc(s.files, func(a, b *file) int { return cmp.Compare(a.name, b.name) })
		for _, v := range s.files {
			s.begin = append(s.begin, s.size)
			s.size += v.Size()
		}
	}
	return r
}

// close ends all foreruns.
func (r *foreruns) close() {
	r.cancel()
	r.done.Wait()
}

// at returns the file at an offset of the shelf, the offset in it, and where it ends on the shelf.
func (s *shelf) at(off int64) (f *file, in, end int64) {
	i, found := slices.BinarySearch(s.begin, off)
	if !found {
		i--
	}
	f = s.files[i]
	return f, off - s.begin[i], s.begin[i] + f.Size()
}

// place returns the offset on the shelf of an offset in a file.
func (s *shelf) place(f *file, off int64) int64 { return s.begin[slices.Index(s.files, f)] + off }

// read is told of each READ of the kernel that was not a direct read.
func (r *foreruns) read(f *file, off, n int64) {
	s := r.dirs[f]
	if s == nil {
		return
	}
	at := s.place(f, off)
	bytes, leads := f.streams.leading(off, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	clock := r.fs.units.Tick()
	for _, x := range r.list {
		if x.shelf == s && x.isAt(at, n, r.gap) {
			x.clock = clock
			r.advance(x, at+n)
			return
		}
	}
	if leads && bytes >= r.gap/2 {
		r.start(s, at+n, bytes, clock)
	}
}

// isAt reports whether a READ belongs to the loader of a forerun: between what it has read and what
// it may read next.
func (x *forerun) isAt(at, n, gap int64) bool {
	return at+n > x.reached-gap && at <= x.next+2*gap
}

// start begins a forerun behind what the kernel reads ahead by itself.
func (r *foreruns) start(s *shelf, front, bytes, clock int64) {
	if len(r.list) >= maxForeruns {
		oldest := slices.MinFunc(r.list, func(a, b *forerun) int { return cmp.Compare(a.clock, b.clock) })
		r.list = slices.DeleteFunc(r.list, func(x *forerun) bool { return x == oldest })
	}
	x := &forerun{
		shelf: s, next: min(front+2*r.gap, s.size), reached: front, start: clock, clock: clock,
		window: min(firstWindow, 2*bytes, r.most()),
	}
	r.list = append(r.list, x)
	r.run()
}

// maxForeruns is how many streams have one.
const maxForeruns = 16

// advance records that the loader has come to an offset.
func (r *foreruns) advance(x *forerun, to int64) {
	if to <= x.reached {
		return
	}
	if to-x.reached >= x.window/2 || x.next < to {
		x.window = min(2*x.window, r.most())
	}
	x.reached = to
	if x.next < to+r.gap/2 { // the kernel reads ahead of it by itself
		x.next = min(to+2*r.gap, x.shelf.size)
	}
	r.run()
}

// most returns the largest window that there is memory for.
func (r *foreruns) most() int64 { return min(maxWindow, available(os.ReadFile)/10) }

// run starts goroutines for what may be stored now.
func (r *foreruns) run() {
	for r.running < runtime.GOMAXPROCS(0) && r.ctx.Err() == nil && r.ready() != nil {
		r.running++
		r.done.Add(1)
		go r.work()
	}
}

// ready returns the forerun that is the least far ahead of its loader, of those that may go on.
func (r *foreruns) ready() *forerun {
	var best *forerun
	for _, x := range r.list {
		if x.next < min(x.reached+2*r.gap+x.window, x.shelf.size) &&
			(best == nil || x.next-x.reached < best.next-best.reached) {
			best = x
		}
	}
	return best
}

// work stores bytes while there is something to store.
func (r *foreruns) work() {
	defer r.done.Done()
	buf := make([]byte, storeSize)
	for {
		f, off, n, since, ok := r.take()
		if !ok {
			return
		}
		if err := r.store(f, buf[:n], off, since); err != nil {
			r.failed(f, err)
		}
	}
}

// take takes the next bytes to store.
func (r *foreruns) take() (f *file, off, n, since int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.ready()
	if x == nil || r.ctx.Err() != nil {
		r.running--
		return nil, 0, 0, 0, false
	}
	f, off, end := x.shelf.at(x.next)
	if off == 0 && !x.shelf.seen {
		x.shelf.seen = true
		r.introduce(x.shelf)
	}
	n = min(storeSize-off%storeSize, end-x.next)
	x.next += n
	return f, off, n, x.start, true
}

// introduce makes the kernel know the files of a shelf, since it stores nothing for others. The
// loader has a file open, so a look at another one does not keep the mount busy.
func (r *foreruns) introduce(s *shelf) {
	if r.path == nil {
		return
	}
	r.done.Go(func() {
		for _, f := range s.files {
			if r.ctx.Err() != nil {
				return
			}
			_, _ = os.Lstat(r.path(f.name)) // if it fails, the file is not stored
		}
	})
}

// store decodes [off, off+len(p)) of a file and stores it in the page cache, but for the mark.
func (r *foreruns) store(f *file, p []byte, off, since int64) error {
	inode, ok := r.inodes.Load(f)
	if !ok || f.streams.visited(off, int64(len(p)), since) {
		return nil
	}
	if err := f.forerun(r.ctx, p, off); err != nil {
		return err
	}
	node := inode.(*gofs.Inode)
	for _, part := range aroundMark(off, int64(len(p))) {
		q := p[part[0]-off : part[1]-off]
		if errno := node.WriteCache(part[0], q); errno != 0 {
			if errno == syscall.ENOENT {
				r.inodes.Delete(f) // the kernel has forgotten it
				return nil
			}
			return errno
		}
		r.stored.Add(int64(len(q)))
	}
	return nil
}

// aroundMark returns the parts of [off, off+n) that are not a mark.
func aroundMark(off, n int64) [][2]int64 {
	mark := off/markEvery*markEvery + markEvery/2
	if mark < off || mark >= off+n {
		return [][2]int64{{off, off + n}}
	}
	parts := [][2]int64{{off, mark}, {mark + pageSize, off + n}}
	return slices.DeleteFunc(parts, func(p [2]int64) bool { return p[0] >= p[1] })
}

// failed drops the foreruns of a file. Its reader will see its own error.
func (r *foreruns) failed(f *file, err error) {
	if r.ctx.Err() != nil {
		return
	}
	r.errors.Add(1)
	r.fs.log.Debug("decoding ahead failed", slog.String("file", f.name), slog.Any("error", err))
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.dirs[f]
	r.list = slices.DeleteFunc(r.list, func(x *forerun) bool { return x.shelf == s })
}

// known records the kernel's inode of a file.
func (r *foreruns) known(f *file, n *gofs.Inode) { r.inodes.Store(f, n) }
