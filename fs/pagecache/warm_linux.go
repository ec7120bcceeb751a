package pagecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Options say how Warm works. Zero values are useful.
type Options struct {
	Jobs int // windows that are read at once; 0: enough for a slow source

	// Room returns how many more bytes fit into memory, and the limit that decides. held is how
	// many of the wanted bytes are in memory, brought how many of those this call has brought.
	// Without Room, there is no limit.
	Room func(held, brought int64) (bytes int64, by string)

	// Look is called each second. Its error ends Warm. It may be nil.
	Look func() error

	// Progress is told of each finished window: of which file, how many of its bytes were wanted,
	// and how many of those had to be read. It is called by one goroutine at a time, and may be
	// nil.
	Progress func(file int, wanted, read int64)

	lookBehind int64 // for tests
}

const (
	window      = 8 << 20   // bytes that one goroutine brings at a time
	requestSize = 1 << 20   // at most, of a request to FUSE
	firstAsk    = 2 << 20   // how much the kernel is asked for at once, see warmer.ask
	leastAsk    = 128 << 10 // the kernel's default read-ahead
	askRoom     = 64 << 20  // Room is asked after so many bytes
	lookBehind  = 512 << 20 // after so many bytes, see whether the first ones are still there
	minJobs     = 8
)

// Warm brings files into memory, in their order. It skips what is there already, and returns how
// many bytes it brought. It stops when memory is full (FullError), when the kernel drops what was
// brought (ErrEvicted), or when ctx ends.
//
// The kernel is asked to read ahead (posix_fadvise), which copies nothing to this process. Then one
// byte of each request is read, which waits for the request and returns its error.
//
// It asks through a descriptor with O_DIRECT. A mount of dequantfs then does not take it for a
// loader that will also want the next files.
func Warm(ctx context.Context, files []File, o Options) (brought int64, err error) {
	if o.Jobs <= 0 {
		o.Jobs = max(minJobs, 2*runtime.GOMAXPROCS(0))
	}
	o.lookBehind = cmp.Or(o.lookBehind, lookBehind)
	if o.Room == nil {
		o.Room = func(int64, int64) (int64, string) { return math.MaxInt64, "" }
	}
	w := &warmer{Options: o, step: firstAsk}
	w.held, err = heldOf(ctx, files)
	if w.secret = errors.Is(err, ErrSecret); err != nil && !w.secret {
		return 0, err
	}
	err = w.run(ctx, files)
	return w.brought, err
}

// heldOf returns how many of the wanted bytes are in memory.
func heldOf(ctx context.Context, files []File) (bytes int64, err error) {
	all, err := Check(ctx, files)
	for _, h := range all {
		bytes += h.InMem
	}
	return bytes, err
}

// warmer is one call of Warm.
type warmer struct {
	Options

	mu            sync.Mutex
	held, brought int64 // see Options.Room
	coming        int64 // bytes that are being read
	room          int64 // bytes that may be brought before Room is asked again
	sinceLook     int64
	secret        bool    // the kernel does not tell what is in memory
	first         []piece // the first ones that were brought
	step          int64   // see ask
	looked        time.Time

	closing sync.WaitGroup
}

// piece is a window of a file.
type piece struct {
	file  int
	open  *shared
	at    Range
	there int64 // bytes of it that were in memory before
}

// shared is an open file of several pieces. The last one closes it.
type shared struct {
	*os.File
	ahead *os.File // the same with O_DIRECT, where the file system has that
	users sync.WaitGroup

	try  sync.Once
	kept error // ErrNotKept if reads leave nothing in memory
}

// keeps reads one byte at off, and fails if the page does not stay in memory: the file system reads
// past the page cache. Asking the kernel to read ahead would fill memory in vain.
func (s *shared) keeps(off int64) error {
	s.try.Do(func() {
		if _, s.kept = s.ReadAt(make([]byte, 1), off); s.kept != nil {
			s.kept = fmt.Errorf("%s: at byte %d: %w", s.Name(), off, s.kept)
			return
		}
		n, err := Resident(s.File, Range{off, 1})
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: %w", s.Name(), ErrNotKept)
		}
		s.kept = err
	})
	return s.kept
}

// run brings the files window by window.
func (w *warmer) run(caller context.Context, files []File) error {
	g, ctx := errgroup.WithContext(caller)
	g.SetLimit(w.Jobs)
	for i := range files {
		if ctx.Err() != nil {
			break
		}
		if err := w.file(ctx, g, i, &files[i]); err != nil {
			g.Go(func() error { return err })
			break
		}
	}
	err := g.Wait()
	w.forget()
	w.closing.Wait() // an open file would keep its mount busy
	if err == nil {
		err = caller.Err() // windows that were not handed out have no error
	}
	return err
}

// file hands the windows of a file to goroutines.
func (w *warmer) file(ctx context.Context, g *errgroup.Group, i int, f *File) error {
	of, err := openShared(f.Name)
	if err != nil {
		return err
	}
	for _, r := range f.Ranges {
		for at := r.Off; at < r.Off+r.Len && ctx.Err() == nil; at += window {
			p := piece{file: i, open: of, at: Range{at, min(window, r.Off+r.Len-at)}}
			of.users.Add(1)
			g.Go(func() error {
				defer of.users.Done()
				return w.piece(ctx, p)
			})
		}
	}
	of.users.Done()
	w.closing.Go(of.close)
	return nil
}

// openShared opens a file for a first user.
func openShared(name string) (*shared, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	// Each request reads what it asks for and no more.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	s := &shared{File: f, ahead: f}
	if ahead, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0); err == nil {
		s.ahead = ahead
	}
	s.users.Add(1)
	return s, nil
}

// close closes the file once it has no users.
func (s *shared) close() {
	s.users.Wait()
	if s.ahead != s.File {
		s.ahead.Close()
	}
	s.Close()
}

// piece brings one window, if memory has room for it.
func (w *warmer) piece(ctx context.Context, p piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if !w.secret {
		if p.there, err = Resident(p.open.File, p.at); err != nil {
			return err
		}
	}
	if p.there == p.at.Len {
		w.finish(p, 0)
		return nil
	}
	if err := w.admit(p.at.Len - p.there); err != nil {
		return err
	}
	if w.secret {
		err = w.read(p)
	} else if err = p.open.keeps(p.at.Off); err == nil {
		err = w.fetch(p)
	}
	w.arrived(p, err)
	return err
}

// admit fails at once if there is no room for n more bytes.
func (w *warmer) admit(n int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.look(); err != nil {
		return err
	}
	if w.room < n {
		room, by := w.Room(w.held+w.coming, w.brought+w.coming)
		if room < n {
			return &FullError{By: by}
		}
		w.room = min(room, askRoom)
	}
	w.room -= n
	w.coming += n
	return nil
}

// look checks what may end the work: each second what the caller asks for, and after some bytes
// whether the first ones are still in memory.
func (w *warmer) look() error {
	if w.Look != nil && time.Since(w.looked) > time.Second {
		w.looked = time.Now()
		if err := w.Look(); err != nil {
			return err
		}
	}
	if w.sinceLook < w.lookBehind || w.secret {
		return nil
	}
	w.sinceLook = 0
	return w.stillThere()
}

// keepFirst is how many of the first windows are looked at again. The kernel evicts them first.
const keepFirst = 4

// stillThere fails if the first windows that were brought are not in memory any more.
func (w *warmer) stillThere() error {
	for _, p := range w.first {
		n, err := Resident(p.open.File, p.at)
		if err != nil {
			return err
		}
		if n < p.at.Len*15/16 {
			return ErrEvicted
		}
	}
	return nil
}

// forget closes the files of the first windows.
func (w *warmer) forget() {
	for _, p := range w.first {
		p.open.users.Done()
	}
	w.first = nil
}

// fetch brings a window into memory.
func (w *warmer) fetch(p piece) error {
	if err := w.ask(p); err != nil {
		return fmt.Errorf("%s: at byte %d: %w", p.open.Name(), p.at.Off, err)
	}
	n, err := present(p.open.File, p.at)
	if err != nil || n == p.at.Len {
		return err
	}
	if n < p.at.Len/2 {
		w.askForLess()
	}
	return w.read(p)
}

// ask asks the kernel to read ahead, and waits. A larger step than the kernel's read-ahead would be
// cut.
func (w *warmer) ask(p piece) error {
	w.mu.Lock()
	step := w.step
	w.mu.Unlock()
	end := p.at.Off + p.at.Len
	for at := p.at.Off; at < end; at += step {
		err := unix.Fadvise(int(p.open.ahead.Fd()), at, min(step, end-at), unix.FADV_WILLNEED)
		if err != nil {
			return err
		}
	}
	var one [1]byte
	for at := p.at.Off; at < end; at += requestSize {
		if _, err := p.open.ReadAt(one[:], min(at+requestSize, end)-1); err != nil {
			return err
		}
	}
	return nil
}

// askForLess makes the steps smaller, after the kernel has cut one.
func (w *warmer) askForLess() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step = leastAsk
}

// buffers are for reads that copy.
var buffers = sync.Pool{New: func() any { b := make([]byte, requestSize); return &b }}

// read reads a window like any other program.
func (w *warmer) read(p piece) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for at, end := p.at.Off, p.at.Off+p.at.Len; at < end; at += requestSize {
		if _, err := p.open.ReadAt((*buf)[:min(requestSize, end-at)], at); err != nil {
			return fmt.Errorf("%s: at byte %d: %w", p.open.Name(), at, err)
		}
	}
	return nil
}

// arrived counts a window that was read, or was not.
func (w *warmer) arrived(p piece, err error) {
	n := p.at.Len - p.there
	w.mu.Lock()
	w.coming -= n
	if err == nil {
		w.held += n
		w.brought += n
		w.sinceLook += n
		if len(w.first) < keepFirst {
			p.open.users.Add(1)
			w.first = append(w.first, p)
		}
	}
	w.mu.Unlock()
	if err == nil {
		w.finish(p, n)
	}
}

// finish reports a window that is in memory.
func (w *warmer) finish(p piece, read int64) {
	if w.Progress == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Progress(p.file, p.at.Len, read)
}
