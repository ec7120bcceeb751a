package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// resolve answers with the content of a file, or a part of it.
func (c call) resolve() {
	f := c.repo.byName[c.r.PathValue("path")]
	if f == nil {
		c.missing(c.r.PathValue("path"))
		return
	}
	id, err := f.identity(c.r.Context())
	if err != nil {
		c.broken(f, err)
		return
	}
	header := c.w.Header()
	header.Set("ETag", `"`+id+`"`)
	header.Set("X-Repo-Commit", c.repo.commit)
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Cache-Control", "private, no-cache")
	c.h.active.Add(1)
	defer c.h.active.Add(-1)
	b := &body{ResponseWriter: c.w, of: c.h}
	defer b.end(c, f)
	http.ServeContent(b, c.r, "", time.Time{}, f.reader(c.r.Context()))
}

// body sends the content of a file. It extends the deadline of the connection as long as the client
// takes it.
type body struct {
	http.ResponseWriter
	of     *Handler
	failed error // of a read or a write
	source bool  // a read failed
}

// end aborts the connection if the answer is not whole.
func (b *body) end(c call, f *file) {
	if b.failed == nil {
		return
	}
	c.h.aborted.Add(1)
	if b.source && c.r.Context().Err() == nil {
		c.h.say(c.repo.id+"/"+f.name, b.failed)
	}
	panic(http.ErrAbortHandler)
}

// Bounds of the buffers of answers. A large read is faster, since several cores share its work.
// Many answers at once get smaller ones.
const (
	maxBuffer  = 4 << 20
	minBuffer  = 256 << 10
	allBuffers = 64 << 20
	writeSize  = 256 << 10 // for which a client has the time of Options.Stall
)

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// ReadFrom sends all of a reader.
func (b *body) ReadFrom(from io.Reader) (sent int64, err error) {
	size := min(max(allBuffers/int(b.of.active.Load()), minBuffer), maxBuffer)
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	if cap(*buffer) < size {
		*buffer = make([]byte, size)
	}
	for {
		n, readErr := from.Read((*buffer)[:size])
		if readErr != nil && readErr != io.EOF {
			b.failed, b.source = readErr, true
			return sent, readErr
		}
		m, err := b.Write((*buffer)[:n])
		sent += int64(m)
		b.of.sent.Add(int64(m))
		if err != nil || readErr == io.EOF {
			return sent, err
		}
	}
}

// Write sends bytes in steps, each with a deadline of its own.
func (b *body) Write(p []byte) (sent int, err error) {
	control := http.NewResponseController(b.ResponseWriter)
	for len(p) > 0 && err == nil {
		var n int
		step := p[:min(len(p), writeSize)]
		err = control.SetWriteDeadline(time.Now().Add(b.of.stall))
		if err == nil || errors.Is(err, http.ErrNotSupported) { // a test may have no connection
			n, err = b.ResponseWriter.Write(step)
		}
		sent, p = sent+n, p[n:]
	}
	if err != nil {
		b.failed = err
	}
	return sent, err
}

// maxSaid is the most errors that are remembered as said.
const maxSaid = 1000

// said remembers errors, so that each is logged once.
type said struct {
	mu   sync.Mutex
	seen map[string]bool
}

// say logs why a file cannot be read.
func (h *Handler) say(name string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.said.mu.Lock()
	defer h.said.mu.Unlock()
	cause := err
	for next := err; next != nil; next = errors.Unwrap(next) { // without offsets
		cause = next
	}
	key := name + ": " + cause.Error()
	if h.said.seen[key] {
		return
	}
	if h.said.seen == nil || len(h.said.seen) >= maxSaid {
		h.said.seen = map[string]bool{}
	}
	h.said.seen[key] = true
	h.log.Error("cannot serve "+name, "err", err)
}
