package faultproxy

import (
	"net/http"
	"slices"
	"sync"
)

// Request is one request, as it came, and what was answered.
type Request struct {
	Method, Host, Path, Query string
	Header                    http.Header
	Status                    int
	Bytes                     int64 // of the body, that were sent
	Fault                     Kind  // None if the request was passed on
}

// Range is what was asked for, or "" for the whole object.
func (r Request) Range() string { return r.Header.Get("Range") }

// Authorized reports whether the request has an Authorization header.
func (r Request) Authorized() bool { return r.Header.Get("Authorization") != "" }

// Log records requests.
type Log struct {
	mu   sync.Mutex
	list []Request
}

// Add records a request.
func (l *Log) Add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, r)
}

// Requests gives the requests that were answered so far.
func (l *Log) Requests() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// Reset forgets all requests.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
}

// Count counts the requests that match.
func (l *Log) Count(match func(Request) bool) (n int) {
	for _, r := range l.Requests() {
		if match(r) {
			n++
		}
	}
	return n
}

// Bytes sums the bytes of all bodies that were sent.
func (l *Log) Bytes() (n int64) {
	for _, r := range l.Requests() {
		n += r.Bytes
	}
	return n
}

// Handler records the requests to a handler.
func (l *Log) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry, out := newRequest(r), &counter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			entry.Status, entry.Bytes = out.status, out.bytes
			l.Add(entry)
		}()
		h.ServeHTTP(out, r)
	})
}

// newRequest notes what was asked.
func newRequest(r *http.Request) Request {
	return Request{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery,
		Header: r.Header.Clone()}
}

// counter notes what is answered.
type counter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}
