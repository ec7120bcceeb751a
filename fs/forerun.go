package fs

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// foreruns decode ahead of the loaders of a mount. A loader that maps files would otherwise wait
// for each window of the kernel's read-ahead.
//
// A forerun belongs to a loader that reads a shelf from somewhere on. It decodes what the loader
// needs next, and stores it in the kernel's page cache (FUSE_NOTIFY_STORE). It opens no file of the
// mount, so it neither keeps the mount busy nor waits for it.
//
// The kernel answers readers from its cache without a word. So a forerun leaves out some pages, its
// marks. The READ of a mark shows how far the loader has come.
//
// # Bounds
//
// A forerun is at most a window ahead of its loader. The window is small at first, and doubles
// after the loader has read all of it. Bytes that no loader has come to when its forerun is dropped
// are wasted. No forerun begins while more than a part of what was read is wasted.
//
// Readers come first. A forerun works only on processors that no READ uses, until its loader has
// come to what it has stored: then it spares that loader its READs. It takes neither room
// nor read-ahead from readers in the cache (units.Read.Modest), and it decodes no page that the
// kernel has been given or has asked for.
//
// No reader sees an error of a forerun. The page stays out, and its reader meets its own error.
//
// # Locks of the kernel
//
// The kernel keeps a page locked from its READ to our reply, and a store waits for that lock. So
// a goroutine that stores holds nothing that a READ could wait for: no lock, unit, block, or
// buffer, but only its own bytes. It skips the pages of READs under way, since a store that waits
// for one cannot be interrupted. A store that waits in spite of that ends when the READ is answered
// or the connection ends. Unmounting waits for the stores under way, and they never wait for it.
type foreruns struct {
	fs     *FS
	ctx    context.Context
	cancel context.CancelFunc
	path   func(name string) string // of a file of the tree in the mount; nil: it has none
	gap    int64                    // what the kernel reads ahead by itself
	memory func() int64             // available
	views  map[*file]*foreview
	caches sync.Map // *file → pageCache, of the files that the kernel knows

	mu      sync.Mutex
	list    []*forerun
	reading []span // of the kernel, under way
	running int    // goroutines that decode and store
	most    int    // of both together
	read    int64  // bytes that loaders have read
	wasted  int64  // bytes of dropped foreruns that no loader has come to
	room    int64  // see leeway
	looked  time.Time
	done    sync.WaitGroup

	stored, failures atomic.Int64 // bytes; failures
}

// pageCache is the kernel's cache of a file.
type pageCache interface {
	WriteCache(off int64, p []byte) syscall.Errno
}

// span is the pages [from, to) of a file.
type span struct {
	file     *file
	from, to int64
}

// foreview is what foreruns know about a view. The files that ranks share are a view of their own.
type foreview struct {
	files   []*file
	inFiles *shelf
	given   map[*file]given
	front   *front // on the shelf in the order of keys; nil until its keys are sorted
	sorting bool   // they are, or will be
	seen    bool   // the kernel knows the files, or will
}

// forerun decodes ahead of one loader. Offsets are those of its shelf.
type forerun struct {
	view    *foreview
	shelf   *shelf
	reached int64 // what the loader has read
	next    int64 // what is stored next
	window  int64 // most bytes that are stored and not read
	passed  int64 // bytes that were stored and read since the window was doubled
	claimed int64 // bytes that are being decoded
	marks   []mark
	stored  []mark // what was stored and not read: where, and how many bytes
	proven  bool   // the loader has come to bytes that were stored
	ended   bool   // it goes no further
	resting bool   // there was no room, until the next READ
	since   int64  // when its loader began, as a clock of streams
	seen    time.Time
}

// Distances of a forerun.
const (
	firstWindow = 64 << 20
	lastWindow  = 1 << 30
	storeSize   = 3 << 20 // the most bytes that are stored at once
	maxForeruns = 16
	forgetAfter = 30 * time.Second // a loader from which nothing was heard
	lately      = 2 * time.Second
	askEvery    = 100 * time.Millisecond
)

// newForeruns makes the foreruns of a mount. gap is what the kernel reads ahead by itself.
func (f *FS) newForeruns(path func(string) string, gap int64) *foreruns {
	r := &foreruns{
		fs: f, path: path, gap: gap, views: map[*file]*foreview{}, most: f.options.Workers,
		memory: func() int64 { return available(os.ReadFile) },
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, files := range f.together() {
		v := &foreview{files: files, inFiles: inFiles(files), given: map[*file]given{}}
		for _, f := range files {
			r.views[f] = v
		}
	}
	return r
}

// close ends all foreruns. It must be called after the mount has ended.
func (r *foreruns) close() {
	r.mu.Lock()
	r.cancel()
	r.mu.Unlock()
	r.done.Wait()
}

// known records the kernel's cache of a file.
func (r *foreruns) known(f *file, c pageCache) { r.caches.Store(f, c) }

// begin is told of each READ of the kernel that fills its cache, before it is answered.
func (r *foreruns) begin(f *file, off, n int64) {
	v := r.views[f]
	r.mu.Lock()
	defer r.mu.Unlock()
	from, to := pages(off, min(n, f.Size()-off))
	r.reading = append(r.reading, span{f, from, to})
	g := v.of(f)
	if g.next(from, to, true) < to {
		r.evicted(v)
		g = v.of(f)
	}
	g.set(from, to)
}

// of returns the pages of a file that the kernel was given.
func (v *foreview) of(f *file) given {
	g := v.given[f]
	if g == nil {
		_, n := pages(0, f.Size())
		g = make(given, (n+63)/64)
		v.given[f] = g
	}
	return g
}

// evicted is called when the kernel asks for pages again. It has dropped pages of the view, and it
// is not known which.
func (r *foreruns) evicted(v *foreview) {
	clear(v.given)
	if v.front != nil {
		v.front = newFront(v.front.shelf, v.given)
	}
	for _, x := range r.list {
		if x.view == v {
			x.window = min(x.window, firstWindow)
		}
	}
}

// end is told of the same READ after it was answered. n is 0 if it failed.
func (r *foreruns) end(f *file, off, asked, n int64) {
	run := f.streams.around(off, n)
	from, to := pages(off, min(asked, f.Size()-off))
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.reading, span{f, from, to})
	r.reading = slices.Delete(r.reading, i, i+1)
	if n > 0 {
		r.read += n
		r.follow(f, off, n, run)
	}
	for _, x := range r.list {
		x.resting = false
	}
	r.run()
}

// follow finds out which loader a READ comes from. It begins a forerun if there is a new one.
func (r *foreruns) follow(f *file, off, n int64, run progress) {
	v := r.views[f]
	now := time.Now()
	for _, x := range r.list {
		if x.view == v {
			r.sign(x, f, off, n, now)
		}
	}
	if v.front == nil {
		r.sortKeys(v)
	} else if r.followKeys(v, f, off, n, run.start, now) {
		return
	}
	isMark := n <= pageSize && f.isMark(off/pageSize)
	if !isMark && run.leads && run.bytes >= enoughBytes(r.gap) {
		at, _ := v.inFiles.place(f, off)
		r.start(v, v.inFiles, at+n, run.start, now)
	}
}

// followKeys reports whether a READ comes from a loader that certainly reads in the order of keys.
// It begins a forerun for one that seems to.
func (r *foreruns) followKeys(v *foreview, f *file, off, n, since int64, now time.Time) bool {
	at, follows := v.front.read(f, off, n)
	if x := r.at(v.front.shelf, now); x != nil {
		return x.proven
	}
	if follows {
		r.guessAgain(v)
		r.start(v, v.front.shelf, at, since, now)
	}
	return follows
}

// guessAgain drops the foreruns of loaders that were taken for some that read in the order of
// files. If they read in the order of keys, they will come to what was stored.
func (r *foreruns) guessAgain(v *foreview) {
	r.list = slices.DeleteFunc(r.list, func(x *forerun) bool {
		return x.shelf == v.inFiles && !x.proven
	})
}

// sortKeys sorts the keys of a view. Mounting and READs do not wait for it: DeepSeek-V3 has 46,000.
func (r *foreruns) sortKeys(v *foreview) {
	if v.sorting {
		return
	}
	v.sorting = true
	r.done.Go(func() {
		s := inKeys(v.files)
		r.mu.Lock()
		defer r.mu.Unlock()
		v.front = newFront(s, v.given)
	})
}

// enoughBytes is how many bytes in a row a loader has read. A tensor that is read alone makes the
// kernel read up to three windows.
func enoughBytes(gap int64) int64 { return gap * 7 / 2 }

// sign records that the loader of x may have made a READ.
func (r *foreruns) sign(x *forerun, f *file, off, n int64, now time.Time) {
	if x.unmark(f, off, n) {
		x.seen = now
		to := x.next
		if len(x.marks) > 0 {
			to = x.marks[0].end
		}
		r.advance(x, to)
	}
	at, ok := x.shelf.place(f, off)
	if !ok || x.shelf.byKey || at <= x.reached-2*r.gap || at > x.next {
		return
	}
	if !x.ended || at+n <= x.next {
		x.seen = now
		r.advance(x, at+n)
	}
}

// unmark removes the marks that a READ covers, and reports whether there are any. A forerun that
// waits for its loader and has no mark takes any READ for a sign.
func (x *forerun) unmark(f *file, off, n int64) bool {
	from, to := pages(off, n)
	had := len(x.marks)
	x.marks = slices.DeleteFunc(x.marks, func(m mark) bool {
		p, in := x.shelf.at(m.end)
		page := (p.off + in) / pageSize
		return p.file == f && page >= from && page < to
	})
	return len(x.marks) < had || had == 0 && x.shelf.byKey && x.unread() >= x.window
}

// advance records that the loader of x has come to an offset. If it is faster than the forerun, the
// forerun goes on behind what the kernel reads ahead by itself.
func (r *foreruns) advance(x *forerun, to int64) {
	if to <= x.reached {
		return
	}
	x.reached = to
	passed := func(m mark) bool { return m.end < to }
	x.marks = slices.DeleteFunc(x.marks, passed)
	before := x.unread()
	x.stored = slices.DeleteFunc(x.stored, passed)
	n := before - x.unread()
	r.read += n
	x.proven = x.proven || n > 0
	if x.passed += n; x.passed >= x.window {
		x.window, x.passed = min(2*x.window, lastWindow), 0
	}
	if x.next < to {
		x.next = r.ahead(x.shelf, to)
	}
}

// ahead returns where a forerun goes on that is not ahead of its loader. In the order of files it
// leaves to the kernel what the kernel reads ahead by itself.
func (r *foreruns) ahead(s *shelf, at int64) int64 {
	if s.byKey {
		return at
	}
	return min(at+2*r.gap, s.size)
}

// start begins a forerun for a loader that has come to an offset, unless it has one.
func (r *foreruns) start(v *foreview, s *shelf, at, since int64, now time.Time) {
	for _, x := range r.list {
		if x.shelf == s && at > x.reached-2*r.gap && at <= x.next+2*r.gap {
			if at > x.next && len(x.marks) == 0 {
				r.advance(x, at)
			}
			return
		}
	}
	r.forget(now)
	if risk := r.risk(); risk > 0 && 10*(risk+firstWindow) > r.read {
		return
	}
	x := &forerun{view: v, shelf: s, reached: at, window: firstWindow, since: since, seen: now}
	x.next = r.ahead(s, at)
	r.list = append(r.list, x)
	r.introduce(v)
}

// at returns the forerun on a shelf that may go on, and whose loader was there lately, or nil.
func (r *foreruns) at(s *shelf, now time.Time) *forerun {
	for _, x := range r.list {
		if x.shelf == s && !x.over() && now.Sub(x.seen) < lately {
			return x
		}
	}
	return nil
}

// over reports whether a forerun goes no further.
func (x *forerun) over() bool { return x.ended || x.next == x.shelf.size }

// risk returns how many bytes are wasted or may be: those of foreruns whose loader has not come to
// any of them yet.
func (r *foreruns) risk() int64 {
	risk := r.wasted
	for _, x := range r.list {
		switch {
		case x.ended:
			risk += x.unread()
		case !x.proven:
			risk += x.window
		}
	}
	return risk
}

// forget drops the foreruns of loaders that have gone, and the oldest one if there are too many.
func (r *foreruns) forget(now time.Time) {
	r.drop(func(x *forerun) bool {
		return now.Sub(x.seen) > forgetAfter || x.over() && x.unread() == 0
	})
	if len(r.list) >= maxForeruns {
		oldest := slices.MinFunc(r.list, func(a, b *forerun) int { return a.seen.Compare(b.seen) })
		r.drop(func(x *forerun) bool { return x == oldest })
	}
}

// drop drops foreruns.
func (r *foreruns) drop(which func(*forerun) bool) {
	r.list = slices.DeleteFunc(r.list, func(x *forerun) bool {
		if !which(x) {
			return false
		}
		r.wasted += x.unread()
		return true
	})
}

// unread returns how many bytes are stored that the loader has not come to.
func (x *forerun) unread() (n int64) {
	for _, m := range x.stored {
		n += m.bytes
	}
	return n
}

// introduce makes the kernel know the files of a view, since it stores nothing for others. The
// loader has a file open, so a look at another one does not keep the mount busy.
func (r *foreruns) introduce(v *foreview) {
	if r.path == nil || v.seen {
		return
	}
	v.seen = true
	r.done.Go(func() {
		var paths []string
		for _, f := range v.files {
			paths = append(paths, r.path(f.name))
		}
		lookUp(paths, func(i int) bool {
			_, known := r.caches.Load(v.files[i])
			return !known && r.ctx.Err() == nil && r.fs.counters.opened.Load() > 0
		})
	})
}

// stats adds the numbers of foreruns.
func (r *foreruns) stats(s *AheadStats) {
	s.Bytes, s.Errors = r.stored.Load(), r.failures.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Unread = r.wasted
	for _, x := range r.list {
		s.Unread += x.unread()
	}
}
