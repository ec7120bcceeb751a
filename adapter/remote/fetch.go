package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// fetcher asks a backend for bytes.
type fetcher struct {
	backend backend
	options Options
	ctx     context.Context
	end     context.CancelFunc

	bytes, requests atomic.Int64
}

func newFetcher(b backend, o Options) *fetcher {
	f := &fetcher{backend: b, options: o}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// fetch fills p with bytes of an object by one request.
func (f *fetcher) fetch(ctx context.Context, o *object, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	f.requests.Add(1)
	r, err := f.backend.get(ctx, o, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	if err := compare(r, o, off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.Body, p)
	f.bytes.Add(int64(n))
	return n, err
}

// errAnswer is an answer that does not fit its request.
var errAnswer = errors.New("the server's answer does not fit the request")

// compare checks that an answer has the bytes [off, off+n) of the pinned version of an object.
func compare(r *http.Response, o *object, off, n int64) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("%w: it is compressed (Content-Encoding %q)", errAnswer, e)
	}
	if e := r.Header.Get("ETag"); o.etag != "" && e != "" && e != o.etag {
		return fmt.Errorf("%w: its ETag is %s, and was %s", source.ErrChanged, e, o.etag)
	}
	if r.StatusCode == http.StatusOK {
		if off != 0 || n != o.size || r.ContentLength != o.size {
			return fmt.Errorf("%w: it has the whole object (status 200)", errAnswer)
		}
		return nil
	}
	begin, last, total, err := contentRange(r.Header.Get("Content-Range"))
	switch {
	case err != nil:
		return err
	case total != o.size:
		return fmt.Errorf("%w: it has %d bytes, and had %d", source.ErrChanged, total, o.size)
	case begin != off || last != off+n-1:
		return fmt.Errorf("%w: bytes %d-%d instead of %d-%d", errAnswer, begin, last, off, off+n-1)
	case r.ContentLength >= 0 && r.ContentLength != n:
		return fmt.Errorf("%w: Content-Length %d instead of %d", errAnswer, r.ContentLength, n)
	}
	return nil
}

// contentRange reads "bytes 0-9/100".
func contentRange(s string) (begin, last, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, fmt.Errorf("%w: Content-Range %q", errAnswer, s)
	}
	var errs [3]error
	begin, errs[0] = strconv.ParseInt(from, 10, 64)
	last, errs[1] = strconv.ParseInt(to, 10, 64)
	total, errs[2] = strconv.ParseInt(size, 10, 64)
	if errors.Join(errs[:]...) != nil {
		return 0, 0, 0, fmt.Errorf("%w: Content-Range %q", errAnswer, s)
	}
	return begin, last, total, nil
}

// distance is how far ahead of a reader bytes are worth fetching.
func (f *fetcher) distance() int64 { return 64 << 20 }

func (f *fetcher) traffic() source.Traffic {
	return source.Traffic{Bytes: f.bytes.Load(), Requests: f.requests.Load()}
}

// close ends all requests.
func (f *fetcher) close() { f.end() }
