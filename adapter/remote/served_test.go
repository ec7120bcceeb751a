package remote

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// served is a web server with one object, and a store that reads it.
type served struct {
	*fetcher
	data   []byte
	object *object
	server *httptest.Server

	mu     sync.Mutex
	asked  []string // the ranges of all requests
	answer handler
}

// handler answers the i-th request, or reports that it has not.
type handler func(i int, w http.ResponseWriter, r *http.Request) bool

// silent never answers.
func silent(_ int, _ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

const servedTag = `"v1"`

// serve starts a server with random bytes. A nil answer is that of an ordinary file server.
func serve(t testing.TB, size int, o Options, answer handler) *served {
	t.Helper()
	s := &served{data: make([]byte, size), answer: answer}
	r := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = r.Read(s.data)
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	s.object = &object{name: "x.safetensors", size: int64(size), etag: servedTag}
	s.fetcher = s.open(o)
	t.Cleanup(s.fetcher.close)
	return s
}

// open opens the store once more.
func (s *served) open(o Options) *fetcher {
	o.Patience = cmp.Or(o.Patience, 10*time.Second)
	c := newClient(o)
	return newFetcher(&servedBackend{s.server.URL + "/file?X-Signature=secret", c}, o)
}

func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	i := len(s.asked)
	s.asked = append(s.asked, r.Header.Get("Range"))
	answer := s.answer
	s.mu.Unlock()
	w.Header().Set("ETag", servedTag)
	if answer == nil || !answer(i, w, r) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	}
}

// file returns the object as a file.
func (s *served) file() *file {
	return &file{in: &store{fetcher: s.fetcher}, object: s.object,
		blocks: newTable(s.fetcher, s.object)}
}

// ranges returns what was asked for until now.
func (s *served) ranges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// check compares a read with the data.
func (s *served) check(t testing.TB, tab *table, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if k, err := tab.read(context.Background(), p, off); err != nil || int64(k) != n {
		t.Errorf("read of [%d, %d): %d, %v", off, off+n, k, err)
	} else if !bytes.Equal(p, s.data[off:off+n]) {
		t.Errorf("read of [%d, %d): wrong bytes", off, off+n)
	}
}

// servedBackend asks a server for ranges.
type servedBackend struct {
	url    string
	client *client
}

func (b *servedBackend) name() string              { return b.url }
func (b *servedBackend) public() bool              { return true }
func (b *servedBackend) download() source.Download { return source.Download{} }
func (b *servedBackend) list(context.Context, string, int) ([]object, error) {
	return nil, io.ErrUnexpectedEOF
}

func (b *servedBackend) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	a, err := b.client.do(r)
	if err != nil {
		return nil, err
	}
	if err := statusError(a); err != nil {
		return nil, err
	}
	return a, nil
}

// checkpoint makes up where tensors begin: large ones, and small ones.
func checkpoint(r *rand.Rand, size int64) []int64 {
	begins := []int64{1 + r.Int64N(100_000)}
	for {
		n := 1 + r.Int64N(20_000)
		if r.IntN(3) > 0 {
			n = 1 + r.Int64N(min(size/3, 12<<20))
		}
		next := begins[len(begins)-1] + n
		if next >= size {
			return begins
		}
		begins = append(begins, next)
	}
}

// goroutines fails a test that leaves goroutines behind. It is called first.
func goroutines(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		var now int
		for range 500 {
			if now = runtime.NumGoroutine(); now <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<20)
		stacks := buf[:min(runtime.Stack(buf, true), 5000)]
		t.Errorf("%d goroutines before, %d after:\n%s", before, now, stacks)
	})
}

// noSecrets fails if an error has the signature of the address.
func noSecrets(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has a signed address: %v", err)
	}
}

// consistent checks the books of a fetcher that no reader uses.
func (s *served) consistent(t *testing.T) {
	t.Helper()
	f := s.fetcher
	eventually(t, "all requests end", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.flights)+f.looking+f.writes.running == 0 && f.requests.front() == nil &&
			f.looks.front() == nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	var used, blocks int64
	for tab := range f.tables {
		if len(tab.exact) > 0 || tab.active > 0 {
			t.Errorf("%d exact ranges, %d reads", len(tab.exact), tab.active)
		}
		for _, b := range tab.blocks {
			used += int64(len(b.buf))
			blocks++
			if b.state != full || b.in == nil || !b.unused() || b.dropped || b.flight != nil {
				t.Errorf("a block is in no list: %+v", b)
			}
		}
	}
	m := f.memory
	if listed := int64(m.spent.Len() + m.part.Len() + m.early.Len()); listed != blocks {
		t.Errorf("%d blocks, %d in lists", blocks, listed)
	}
	var free int64
	for n, l := range m.free {
		free += n * int64(len(l))
	}
	if m.used != used || m.freeBytes != free {
		t.Errorf("%d bytes of blocks, %d counted; %d free, %d counted",
			used, m.used, free, m.freeBytes)
	}
}
