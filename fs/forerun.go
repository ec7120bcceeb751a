package fs

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
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
// Readers come first. A forerun works only on processors that no READ uses. It takes neither room
// nor read-ahead from readers in the cache (units.Read.Modest), and it decodes no page that the
// kernel has been given or has asked for.
//
// An error of a forerun reaches nobody. The page stays out, and its reader meets its own error.
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

	stored, errors atomic.Int64 // bytes; failures
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

// foreview is what foreruns know about a view.
type foreview struct {
	shelves []*shelf        // in the order of files, and in that of keys
	given   map[*file]given // of all views, since ranks share files
	trails  trails
	seen    bool // the kernel knows the files, or will
}

// forerun decodes ahead of one loader. Offsets are those of its shelf.
type forerun struct {
	view    *foreview
	shelf   *shelf
	reached int64 // what the loader has read
	next    int64 // what is stored next
	window  int64 // how far next may be ahead of reached
	goal    int64 // where the window is doubled
	marks   []mark
	stored  []mark // what was stored: where, and how many bytes
	ended   bool   // it goes no further
	resting bool   // there was no room, until the next READ
	seen    time.Time
}

// Distances of a forerun.
const (
	firstWindow = 64 << 20
	lastWindow  = 1 << 30
	storeSize   = 1 << 20 // bytes that are stored at once
	maxForeruns = 16
	forgetAfter = 30 * time.Second // a loader from which nothing was heard
	askEvery    = 100 * time.Millisecond
)

// newForeruns makes the foreruns of a mount. gap is what the kernel reads ahead by itself.
func (f *FS) newForeruns(path func(string) string, gap int64) *foreruns {
	r := &foreruns{
		fs: f, path: path, gap: gap, views: map[*file]*foreview{}, most: f.options.Workers,
		memory: func() int64 { return available(os.ReadFile) },
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	byDir := map[string][]*file{}
	f.eachFile(func(dir, _ string, v *file) { byDir[dir] = append(byDir[dir], v) })
	all := map[*file]given{}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		files := byDir[dir]
		v := &foreview{shelves: []*shelf{inFiles(files), inKeys(files)}, given: all}
		for _, f := range files {
			if r.views[f] == nil { // of files that ranks share, those that follow are shared, too
				r.views[f] = v
			}
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
	for _, p := range v.shelves[0].parts {
		delete(v.given, p.file)
	}
	for _, x := range r.list {
		if x.view == v {
			x.window = min(x.window, firstWindow)
		}
	}
}

// end is told of the same READ after it was answered. n is 0 if it failed.
func (r *foreruns) end(f *file, off, asked, n int64) {
	bytes, leads := f.streams.leading(off, n)
	from, to := pages(off, min(asked, f.Size()-off))
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.reading, span{f, from, to})
	r.reading = slices.Delete(r.reading, i, i+1)
	if n > 0 {
		r.read += n
		r.follow(f, off, n, bytes, leads)
	}
	for _, x := range r.list {
		x.resting = false
	}
	r.run()
}

// follow finds out which loader a READ comes from. It begins a forerun if there is a new one.
func (r *foreruns) follow(f *file, off, n, bytes int64, leads bool) {
	v := r.views[f]
	now := time.Now()
	for _, x := range r.list {
		if x.view == v {
			r.sign(x, f, off, n, now)
		}
	}
	inFile, inKeys := v.shelves[0], v.shelves[1]
	if at, _ := inFile.place(f, off); leads && bytes >= enoughBytes(r.gap) {
		r.start(v, inFile, at+n, now)
	}
	if at, ok := v.trails.follow(inKeys, f, off, n, 2*r.gap); ok {
		r.start(v, inKeys, at, now)
	}
}

// enoughBytes is how many bytes in a row a loader has read. A tensor that is read alone makes the
// kernel read up to two windows around it.
func enoughBytes(gap int64) int64 { return gap * 5 / 2 }

// sign records that the loader of x may have made a READ.
func (r *foreruns) sign(x *forerun, f *file, off, n int64, now time.Time) {
	from, to := pages(off, n)
	had := len(x.marks)
	x.marks = slices.DeleteFunc(x.marks, func(m mark) bool {
		p, in := x.shelf.at(m.end)
		page := (p.off + in) / pageSize
		return p.file == f && page >= from && page < to
	})
	if len(x.marks) < had {
		x.seen = now
		if len(x.marks) > 0 {
			r.advance(x, x.marks[0].end)
		} else {
			r.advance(x, x.next)
		}
	}
	at, ok := x.shelf.place(f, off)
	if !ok || x.shelf.byKey || at+n <= x.reached || at > x.next || x.ended && at+n > x.next {
		return
	}
	x.seen = now
	r.advance(x, at+n)
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
	for _, m := range x.stored {
		if passed(m) {
			r.read += m.bytes
		}
	}
	x.stored = slices.DeleteFunc(x.stored, passed)
	if to >= x.goal {
		x.window = min(2*x.window, lastWindow)
		x.goal = to + x.window
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
func (r *foreruns) start(v *foreview, s *shelf, at int64, now time.Time) {
	for _, x := range r.list {
		if x.shelf == s && at > x.reached-2*r.gap && at <= x.next+2*r.gap {
			if at > x.next {
				r.advance(x, at)
			}
			return
		}
	}
	r.forget(now)
	if r.wasted > 0 && 10*(r.wasted+firstWindow) > r.read {
		return
	}
	x := &forerun{view: v, shelf: s, reached: at, window: firstWindow, seen: now}
	x.next = r.ahead(s, at)
	x.goal = x.next + x.window
	r.list = append(r.list, x)
	r.introduce(v)
}

// forget drops the foreruns of loaders that have gone, and the oldest one if there are too many.
func (r *foreruns) forget(now time.Time) {
	r.drop(func(x *forerun) bool { return now.Sub(x.seen) > forgetAfter || x.reached == x.shelf.size })
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

// run starts goroutines for what may be stored now.
func (r *foreruns) run() {
	for r.running+len(r.reading) < r.most && r.ready() != nil {
		r.running++
		r.done.Add(1)
		go r.work()
	}
}

// ready returns the forerun that is the least far ahead of its loader, of those that may go on.
func (r *foreruns) ready() (best *forerun) {
	if r.ctx.Err() != nil {
		return nil
	}
	room := r.leeway()
	for _, x := range r.list {
		room -= x.next - x.reached
		if x.next < min(x.limit(), x.shelf.size) && !x.ended && !x.resting &&
			(best == nil || x.next-x.reached < best.next-best.reached) {
			best = x
		}
	}
	if room <= 0 {
		return nil
	}
	return best
}

// limit returns how far a forerun may go now.
func (x *forerun) limit() int64 { return max(x.reached, x.goal-x.window) + x.window }

// leeway returns how far all foreruns together may be ahead: a tenth of the available memory. What
// was stored already is not available, or not for long.
func (r *foreruns) leeway() int64 {
	if now := time.Now(); now.Sub(r.looked) > askEvery {
		r.looked, r.room = now, r.memory()/10
	}
	return r.room
}

// work stores bytes while there is something to store and a processor is idle.
func (r *foreruns) work() {
	defer r.done.Done()
	buf := make([]byte, storeSize+2*pageSize)
	for {
		c, ok := r.take()
		if !ok {
			return
		}
		if err := r.decode(c, buf); err != nil {
			r.failed(c, err)
			continue
		}
		r.store(c, buf)
	}
}

// chunk is pages that are decoded at once.
type chunk struct {
	span
	x    *forerun
	at   int64 // on the shelf
	mark int64 // page that is left out; -1: none
}

// offset returns where the chunk begins in its file.
func (c chunk) offset() int64 { return c.from * pageSize }

// size returns how many bytes the chunk has.
func (c chunk) size() int64 { return min(c.to*pageSize, c.file.Size()) - c.offset() }

// take takes the next chunk.
func (r *foreruns) take() (chunk, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.running+len(r.reading) <= r.most {
		x := r.ready()
		if x == nil {
			break
		}
		if c, ok := x.take(); ok {
			return c, true
		}
	}
	r.running--
	return chunk{}, false
}

// take takes the next chunk of a forerun. It fails if the kernel has been given all of it. In the
// order of files another loader has been there, who has a forerun of his own.
func (x *forerun) take() (c chunk, ok bool) {
	p, in := x.shelf.at(x.next)
	n := min(storeSize-in%storeSize, p.n-in)
	c = chunk{x: x, at: x.next, mark: -1}
	c.file = p.file
	c.from, c.to = pages(p.off+in, n)
	if at, ok := x.shelf.mark(x.next, n); ok {
		c.mark = (p.off + in + at - x.next) / pageSize
		x.marks = append(x.marks, mark{end: at})
	}
	g := x.view.of(p.file)
	from := g.next(c.from, c.to, false)
	if from == c.to {
		x.ended = !x.shelf.byKey
		x.next += n
		return c, false
	}
	for c.from = from; g.next(c.to-1, c.to, true) < c.to; {
		c.to--
	}
	x.next += n
	return c, true
}

// introduce makes the kernel know the files of a view, since it stores nothing for others. The
// loader has a file open, so a look at another one does not keep the mount busy.
func (r *foreruns) introduce(v *foreview) {
	if r.path == nil || v.seen {
		return
	}
	v.seen = true
	r.done.Go(func() {
		for _, p := range v.shelves[0].parts {
			if r.ctx.Err() != nil {
				return
			}
			if _, ok := r.caches.Load(p.file); !ok && r.fs.counters.opened.Load() > 0 {
				_, _ = os.Lstat(r.path(p.file.name)) // if it fails, nothing of the file is stored
			}
		}
	})
}

// decode reads the bytes of a chunk.
func (r *foreruns) decode(c chunk, buf []byte) error {
	if _, ok := r.caches.Load(c.file); !ok {
		return nil
	}
	return c.file.forerun(r.ctx, buf[:c.size()], c.offset())
}

// store stores the pages of a chunk that the kernel does not have.
func (r *foreruns) store(c chunk, buf []byte) {
	cache, ok := r.caches.Load(c.file)
	for at := c.from; ok && at < c.to; {
		from, to := r.missing(c, at)
		if from == to {
			return
		}
		part := chunk{span: span{c.file, from, to}}
		begin := part.offset() - c.offset()
		p := buf[begin : begin+part.size()]
		switch errno := cache.(pageCache).WriteCache(part.offset(), p); errno {
		case 0:
			r.given(c, part)
		case syscall.ENOENT:
			r.caches.Delete(c.file) // the kernel has forgotten the file
			return
		default:
			r.failed(c, errno)
			return
		}
		at = to
	}
}

// missing returns the first pages of a chunk, from at on, that the kernel was not given and does
// not ask for.
func (r *foreruns) missing(c chunk, at int64) (from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := c.x.view.of(c.file)
	from = g.next(at, c.to, false)
	if from == c.mark {
		from = g.next(from+1, c.to, false)
	}
	to = g.next(from, c.to, true)
	if c.mark >= from {
		to = min(to, c.mark)
	}
	return from, to
}

// given records that the kernel was given a part of a chunk.
func (r *foreruns) given(c, part chunk) {
	n := part.size()
	r.stored.Add(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.x.view.of(c.file).set(part.from, part.to)
	if c.at >= c.x.reached {
		c.x.stored = append(c.x.stored, mark{c.at, n})
	}
}

// failed is called if a chunk could not be decoded or stored. The forerun rests until the next
// READ. It has passed the chunk, whose reader will meet its own error.
func (r *foreruns) failed(c chunk, err error) {
	if r.ctx.Err() != nil {
		return
	}
	r.errors.Add(1)
	r.fs.log.Debug("decoding ahead failed", slog.String("file", c.file.name),
		slog.Any("error", err))
	r.mu.Lock()
	defer r.mu.Unlock()
	c.x.resting = true
}

// stats adds the numbers of foreruns.
func (r *foreruns) stats(s *AheadStats) {
	s.Bytes, s.Errors = r.stored.Load(), r.errors.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Unread = r.wasted
	for _, x := range r.list {
		s.Unread += x.unread()
	}
}

// trails are of loaders that may read tensors in the order of their keys.
type trails []*trail

// trail is of such a loader. It is on the shelf of keys.
type trail struct {
	last  int // part that was read
	jumps int // to a part that is elsewhere in the files
}

const (
	maxTrails   = 16
	trailStep   = 4 // how many parts further on the next part of a trail may be
	enoughJumps = 3
)

// follow adds a READ to the trails. It returns how far a loader has come that reads in the order of
// keys, if the READ is one of its.
func (t *trails) follow(s *shelf, f *file, off, n, near int64) (at int64, ok bool) {
	for i := max(f.segment(off), 1); i < len(f.ends) && f.ends[i-1] < off+n; i++ {
		k := s.part[f][i]
		if x := t.of(s, k, near); x.jumps >= enoughJumps {
			at, ok = s.begin[x.last]+s.parts[x.last].n, true
		}
	}
	return at, ok
}

// of returns the trail of a part, which moves to its end of the list.
func (t *trails) of(s *shelf, k int, near int64) *trail {
	for i, x := range *t {
		if k <= x.last-2*trailStep || k > x.last+trailStep {
			continue
		}
		if k > x.last {
			if s.apart(x.last, k, near) {
				x.jumps++
			}
			x.last = k
		}
		*t = append(slices.Delete(*t, i, i+1), x)
		return x
	}
	if len(*t) >= maxTrails {
		*t = slices.Delete(*t, 0, 1)
	}
	x := &trail{last: k}
	*t = append(*t, x)
	return x
}

// apart reports whether two parts are not near each other in a file.
func (s *shelf) apart(i, k int, near int64) bool {
	a, b := s.parts[i], s.parts[k]
	return a.file != b.file || cmp.Compare(max(a.off-b.off-b.n, b.off-a.off-a.n), near) > 0
}
