package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// backend speaks the protocol of one kind of store. It is safe for concurrent use.
type backend interface {
	// name is the source as it is opened again: with a pinned revision if it has revisions, and
	// without credentials.
	name() string

	// public reports whether no credentials are used, so that every user may see the files.
	public() bool

	// list lists a folder of the source, "." for its own. It returns at most the given number of
	// objects. The objects of one listing have versions.
	list(ctx context.Context, folder string, most int) ([]object, error)

	// get asks for [off, off+n) of the pinned version of an object. The answer has status 200 or
	// 206, and the fetcher compares its range, length and version. An error is source.ErrChanged
	// for another version, a *delay for what may be asked again, or final. Errors of the transport
	// are returned as they are, and may be asked again too.
	get(ctx context.Context, o *object, off, n int64) (*http.Response, error)

	// download describes how the source is downloaded instead.
	download() source.Download
}

// object is a file of a store, or a folder.
type object struct {
	name string // slash-separated, below the folder of the source
	dir  bool
	size int64
	// compared with the answer's, in the form of the backend; empty if there is none
	version  string
	etag     string // that each answer must have; empty if answers have none, or it is not known
	weak     string // tells versions apart less surely, in the form of the backend
	sha256   string // of the content, in hexadecimal, if the publisher tells it
	modified time.Time
	unseen   string // changes that would not be noticed, and the fix
	refused  error  // why the object cannot be read
}

// delay is an error that may pass.
type delay struct {
	err   error
	after time.Duration // that the store wants to be left alone; 0 if it does not say
	busy  bool          // the store asked for fewer requests
}

func (d *delay) Error() string { return d.err.Error() }
func (d *delay) Unwrap() error { return d.err }

// errStatus is an answer with another status than was hoped for.
type errStatus struct {
	code int
	text string // that the store sent along
}

func (e *errStatus) Error() string {
	text := fmt.Sprintf("the server answered %d %s", e.code, http.StatusText(e.code))
	if e.text != "" {
		text += ": " + e.text
	}
	return text
}

// hasStatus reports whether an error is an answer with the given status.
func hasStatus(err error, code int) bool {
	var s *errStatus
	return errors.As(err, &s) && s.code == code
}

// statusError returns the error for an answer that is neither 200 nor 206, and nil for these. It
// reads and closes the body of a failed answer. A 403 may pass, since stores answer so when an
// address has expired, and some do so by mistake.
func statusError(r *http.Response) error {
	switch r.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return nil
	}
	err := error(&errStatus{r.StatusCode, excerpt(r)})
	switch c := r.StatusCode; {
	case c == http.StatusPreconditionFailed, c == http.StatusNotFound, c == http.StatusGone,
		c == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", source.ErrChanged, err)
	case c == http.StatusTooManyRequests, c == http.StatusServiceUnavailable:
		return &delay{err, retryAfter(r.Header), true}
	case c == http.StatusRequestTimeout, c == http.StatusForbidden, c >= 500:
		return &delay{err, retryAfter(r.Header), false}
	}
	return err
}

// retryAfter reads how long the store wants to be left alone. 0 means that it does not say.
func retryAfter(h http.Header) time.Duration {
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s >= 0 {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}
