package faultproxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
)

// exchange is one request and its answer.
type exchange struct {
	proxy *Proxy
	plan  *Plan
	kind  Kind
	rng   *rand.Rand
	w     http.ResponseWriter
	r     *http.Request
	entry Request
}

// answer is what the server said, as the client is to see it.
type answer struct {
	status int
	header http.Header
	size   int64 // -1: unknown
	body   io.Reader
}

// resize announces another size of the body.
func (a *answer) resize(n int64) {
	a.size = n
	a.header.Set("Content-Length", strconv.FormatInt(n, 10))
}

// writeHeader writes what comes before the body, on a connection that was taken over.
func (a *answer) writeHeader(c net.Conn) {
	fmt.Fprintf(c, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(c)
	_, _ = io.WriteString(c, "\r\n")
}

// run answers the request, with its fault if the answer can have it.
func (x *exchange) run() {
	f := faults[x.kind]
	if f.instead != nil {
		x.inject()
		f.instead(x)
		return
	}
	resp, err := x.proxy.ask(x.r, f.ask)
	if err != nil {
		x.entry.Status = http.StatusBadGateway
		http.Error(x.w, "faultproxy: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	a := &answer{resp.StatusCode, resp.Header, resp.ContentLength, resp.Body}
	a.header.Del("Connection")
	x.entry.Status = a.status
	if x.kind != None && f.needs(x.r, a) {
		x.inject()
		if f.change != nil {
			f.change(a, x.rng)
		}
	}
	if x.entry.Fault == None {
		x.proxy.count(None)
	}
	if x.entry.Fault == None || f.raw == nil {
		x.send(a)
		return
	}
	c := x.hijack()
	defer c.Close()
	f.raw(x, c, a, x.rng.Int64N(a.size))
}

// inject counts the fault before it happens, since a client may never see its end.
func (x *exchange) inject() {
	x.entry.Fault = x.kind
	x.proxy.count(x.kind)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// send sends the answer in the ordinary way. If the server's body ends early, so does this one.
func (x *exchange) send(a *answer) {
	for name, values := range a.header {
		x.w.Header()[name] = values
	}
	x.w.WriteHeader(a.status)
	if x.r.Method == http.MethodHead {
		return
	}
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	body := a.body
	if a.size >= 0 {
		body = io.LimitReader(body, a.size)
	}
	// Only a writer without ReadFrom lets CopyBuffer use the buffer.
	n, err := io.CopyBuffer(struct{ io.Writer }{x.w}, struct{ io.Reader }{body}, *b)
	x.entry.Bytes = n
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// hijack takes the connection over.
func (x *exchange) hijack() net.Conn {
	c, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return c
}

// hang waits until the client gives up.
func (x *exchange) hang() {
	select {
	case <-x.r.Context().Done():
	case <-x.proxy.closed:
	}
	panic(http.ErrAbortHandler)
}

// untilGone waits until the client closes a connection that was taken over.
func (x *exchange) untilGone(c net.Conn) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, c)
	}()
	select {
	case <-gone:
	case <-x.proxy.closed:
	}
}

// reset closes a connection so that its other end sees a reset.
func reset(c net.Conn) {
	for {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			return
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			_ = c.Close()
			return
		}
		c = below.NetConn()
	}
}
