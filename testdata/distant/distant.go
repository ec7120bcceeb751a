// Package distant makes a local store look like one that is read over a network, for tests. Its
// files say how far ahead of a reader they want to be asked, and record what they are asked for. It
// can stop answering, as a server does.
package distant

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Span is a range of a file.
type Span struct {
	File   string
	Off, N int64
	Cut    bool // it was read after the file was cut, so a real store fetches whole sections
}

// Store is a store whose files come over a network.
type Store struct {
	source.Store
	Ahead int64 // the distance that its files want
	Room  int64 // bytes that may be asked for and not read yet; 0: no limit

	mu       sync.Mutex
	asked    []Span // ahead
	read     []Span
	waiting  map[Span]bool // asked for and not read
	full     int64         // bytes in waiting
	atOnce   int64
	most     int64
	silent   chan struct{} // open while the server does not answer
	requests atomic.Int64
}

var _ source.Networked = (*Store)(nil)

// New wraps a store.
func New(s source.Store) *Store {
	return &Store{Store: s, Ahead: 64 << 20, waiting: map[Span]bool{}}
}

// Open opens a file.
func (s *Store) Open(ctx context.Context, name string) (source.File, error) {
	f, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &file{File: f, in: s}, nil
}

// Traffic counts the reads.
func (s *Store) Traffic() source.Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := source.Traffic{Requests: s.requests.Load(), InFlight: s.atOnce, AtOnce: s.most}
	for _, r := range s.read {
		t.Bytes += r.N
	}
	return t
}

// Asked returns what was asked for ahead, in order.
func (s *Store) Asked() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Span(nil), s.asked...)
}

// Read returns what was read.
func (s *Store) Read() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Span(nil), s.read...)
}

// Forget forgets what was asked for and read so far.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.read, s.most = nil, nil, 0
	s.requests.Store(0)
}

// Silence makes all reads wait until the returned function is called.
func (s *Store) Silence() (answer func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	silent := make(chan struct{})
	s.silent = silent
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.silent == silent {
			s.silent = nil
			close(silent)
		}
	}
}

// begin counts a read and returns what it has to wait for.
func (s *Store) begin(r Span) <-chan struct{} {
	s.requests.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = append(s.read, r)
	for w := range s.waiting {
		if w.File == r.File && w.Off < r.Off+r.N && r.Off < w.Off+w.N {
			delete(s.waiting, w)
			s.full -= w.N
		}
	}
	s.atOnce++
	s.most = max(s.most, s.atOnce)
	return s.silent
}

func (s *Store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.atOnce--
}

// file is a file that comes over a network. It is comparable, as files are.
type file struct {
	source.File
	in  *Store
	cut atomic.Bool
}

var (
	_ source.Ahead     = (*file)(nil)
	_ source.Sectioned = (*file)(nil)
)

// ReadAt reads, unless the server is silent until the context ends.
func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	silent := f.in.begin(Span{f.Name(), off, int64(len(p)), f.cut.Load()})
	defer f.in.end()
	for waiting := silent != nil; waiting; {
		select {
		case <-silent:
			waiting = false
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond): // a context may have no channel
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
	}
	return f.File.ReadAt(ctx, p, off)
}

// Ahead records that a range was asked for.
func (f *file) Ahead(off, n int64) bool {
	s := f.in
	r := Span{File: f.Name(), Off: off, N: n}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[r] {
		return true
	}
	if s.Room > 0 && s.full+n > s.Room {
		return false
	}
	s.waiting[r] = true
	s.full += n
	s.asked = append(s.asked, r)
	return true
}

// Distance is the store's.
func (f *file) Distance() int64 { return f.in.Ahead }

// Cut records that the file was cut.
func (f *file) Cut([]int64) { f.cut.Store(true) }
