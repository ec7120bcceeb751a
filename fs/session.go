package fs

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

const (
	minPiece  = 128 << 10 // the least that is worth another core
	maxPieces = 16
)

// session is one read: what it holds of the cache stays pinned until it ends, so
// that a read touches each unit once, however small the budget. It is the
// expr.Cache of the recipes that it evaluates.
type session struct {
	fs  *FS
	env expr.Env
	ctx context.Context

	wants    []unit // of the tensor cache
	want     func(*expr.Unit) bool
	held     []*entry      // pinned
	admitted chan struct{} // told when the cache lets the session in
	queued   time.Time     // since when it waits for room
	deferred bool          // it had to
	waiting  bool          // for a fill
	served   bool          // the read went well

	file   *file // what is being read
	off, n int64
	run    run
	ahead  ahead

	waits waits
	unit  string // that it waited long for

	began      time.Time
	slow       bool     // that is logged; guarded by live.mu, as the next two are
	prev, next *session // see live

	wg     sync.WaitGroup
	pieces [maxPieces]piece
}

// piece is a part of a read.
type piece struct {
	s   *session
	f   *file
	p   []byte
	off int64
	err error
}

func newSession(f *FS) *session {
	s := &session{fs: f, admitted: make(chan struct{}, 1)}
	s.want = s.wanted
	s.env.Cache = s
	s.env.ReadAt, s.env.Lend = s.readSource, s.lend
	s.env.Counters = &f.lost
	s.ahead.init(s)
	return s
}

// session begins a read.
func (f *FS) session(ctx context.Context, at *file, off, n int64) *session {
	s := f.sessions.Get().(*session)
	s.ctx, s.env.Context = ctx, ctx
	s.file, s.off, s.n = at, off, n
	s.waits.reset()
	f.live.add(s)
	return s
}

// end gives back what the session holds.
func (s *session) end() {
	s.fs.live.remove(s)
	took := time.Since(s.began)
	s.fs.counters.latency[s.file.kindOf(s.off)].add(took)
	if took > s.fs.slowly.after {
		s.sayWhy(took)
	}
	s.fs.cache.finish(s)
	clear(s.wants)
	s.wants = s.wants[:0]
	s.queued, s.served = time.Time{}, false
	s.ctx, s.env.Context, s.file = nil, nil, nil
	s.fs.sessions.Put(s)
}

// sayWhy logs what a read that took long has waited for.
func (s *session) sayWhy(took time.Duration) {
	attrs := s.about(took)
	if s.unit != "" {
		attrs = append(attrs, slog.String("unit", s.unit))
	}
	s.fs.slow("a read took long", attrs...)
	s.unit = ""
}

// Get gives a unit, filled. It stays until the session ends.
func (s *session) Get(ctx context.Context, u *expr.Unit) (expr.Entry, error) {
	key := u.Key()
	switch key.Kind {
	case expr.Grid:
		return s.fs.grids.get(&s.env, u)
	case expr.Computed:
		return s.fs.computed.get(ctx, u)
	}
	if e := s.find(key); e != nil {
		return e, nil
	}
	// A recipe that did not say that it needs this: computed for it alone.
	e := &entry{key: key, buf: make([]byte, u.Size())}
	return e, s.fs.fillUnit(u, e.buf)
}

// lend lends source bytes that were read ahead.
func (s *session) lend(f expr.File, off int64, n, width int) ([]byte, expr.Entry, int) {
	p, k, gap := s.fs.blocks.lend(s.ctx, &s.waits, f, off, int64(n), int64(width))
	if k == nil {
		return nil, nil, int(gap)
	}
	return p, k, 0
}

// readSource fills p from what was read ahead, and reads the rest.
func (s *session) readSource(f expr.File, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		rest := p[n:]
		lent, k, gap := s.fs.blocks.lend(s.ctx, &s.waits, f, off+int64(n), int64(len(rest)), 1)
		if k != nil {
			n += copy(rest, lent)
			k.Release()
			continue
		}
		begun := s.waits.begin(forSource)
		got, err := s.fs.readSource(s.ctx, f, rest[:gap], off+int64(n))
		s.waits.end(forSource, begun)
		if n += got; err != nil {
			return n, err
		}
	}
	return n, nil
}

// find finds a unit among those that the session has pinned.
func (s *session) find(key expr.UnitKey) *entry {
	for _, e := range s.held {
		if e.key == key {
			return e
		}
	}
	return nil
}

// acquire pins the units that the read needs.
func (s *session) acquire() error {
	s.file.units(s.off, s.n, s.want)
	if len(s.wants) == 0 {
		return nil
	}
	if err := s.fs.cache.acquire(s.ctx, s); err != nil {
		return err
	}
	for _, e := range s.held {
		if err := check(e.key.File); err != nil {
			return err
		}
	}
	return nil
}

// wanted notes a unit that the read needs.
func (s *session) wanted(u *expr.Unit) bool {
	if u.Key().Kind == expr.Transposed && !slices.ContainsFunc(s.wants, func(w unit) bool { return w.Key() == u.Key() }) {
		s.wants = append(s.wants, u)
	}
	return true
}

// readAt reads p and fetches ahead of what looks sequential.
func (s *session) readAt(p []byte) error {
	s.run = s.file.streams.touch(s.file.Size(), s.off, s.n, s.fs.clock.Add(1))
	if s.run.leads {
		s.readAhead() // before it waits for what it needs itself
	}
	if err := s.acquire(); err != nil {
		return fmt.Errorf("%s: %w", s.file.name, err)
	}
	if err := s.read(s.file, p, s.off); err != nil {
		return err
	}
	s.served = true
	if s.run.leads {
		s.ahead.fetch()
	}
	if s.run.leads && s.fs.options.SourceCache == SourceDrop {
		s.dropBehind()
	}
	return nil
}

// read fills p from f, with the help of idle cores if p is large.
func (s *session) read(f *file, p []byte, off int64) error {
	pieces := s.split(f, p, off)
	if len(pieces) == 1 {
		return f.fill(&s.env, p, off)
	}
	s.wg.Add(len(pieces))
	for i := range pieces[1:] {
		s.fs.workers.run(&pieces[1+i], &s.fs.counters.splits)
	}
	pieces[0].run()
	s.wg.Wait()
	var err error
	for i := range pieces {
		err = or(err, pieces[i].err)
		pieces[i] = piece{}
	}
	return err
}

// split cuts a read into pieces for the cores that have nothing to do.
func (s *session) split(f *file, p []byte, off int64) []piece {
	n := min(s.fs.workers.idle(s.fs.counters.active.Load())+1, len(p)/minPiece, maxPieces)
	if n <= 1 {
		return s.pieces[:1]
	}
	size := (len(p)/n + 4095) &^ 4095
	pieces := s.pieces[:0]
	for at := 0; at < len(p); at += size {
		q := p[at:min(len(p), at+size)]
		pieces = append(pieces, piece{s: s, f: f, p: q, off: off + int64(at)})
	}
	return pieces
}

// run reads the piece; it never panics.
func (c *piece) run() {
	defer c.s.wg.Done()
	c.err = c.f.fill(&c.s.env, c.p, c.off)
}
