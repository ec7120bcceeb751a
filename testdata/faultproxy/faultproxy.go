// Package faultproxy is an HTTP proxy between a client and one server, which delays, limits, cuts
// and lies as a plan says. It keeps the Host header, so signatures of requests stay right.
//
//	p := faultproxy.New(t, server.URL, faultproxy.Plan{Seed: 1, Rate: 0.2, InARow: 3})
//	… a client that asks p.URL …
//	p.Counts()[faultproxy.Cut] // how many connections were cut
//	p.Log.Requests()           // what was asked, with which headers
//
// Only tests and programs for tests import it.
package faultproxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// TB is the part of testing.TB that is used here.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Proxy is a proxy that runs.
type Proxy struct {
	URL string
	Log Log

	upstream *url.URL
	client   *http.Transport
	plan     atomic.Pointer[Plan]
	total    pace
	closed   chan struct{}

	mu     sync.Mutex
	past   decisions
	counts map[Kind]int
}

// New starts a proxy on loopback. It ends with the test.
func New(t TB, upstream string, plan Plan) *Proxy {
	t.Helper()
	return NewTLS(t, upstream, plan, nil, nil)
}

// NewTLS starts a proxy that serves https with the certificate, unless that is nil. It trusts the
// authorities in roots if its upstream is https; nil is those of the system.
func NewTLS(t TB, upstream string, plan Plan, cert *tls.Certificate, roots *x509.CertPool) *Proxy {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatalf("faultproxy: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("faultproxy: %v", err)
	}
	p := &Proxy{URL: "http://" + l.Addr().String(), upstream: u, closed: make(chan struct{}),
		counts: map[Kind]int{}}
	p.client = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 512,
		TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: http1()}
	p.Set(plan)
	s := &http.Server{Handler: p, Protocols: http1(), ErrorLog: log.New(io.Discard, "", 0)}
	l = pacedListener{l, p}
	if cert != nil {
		p.URL = "https://" + l.Addr().String()
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		close(p.closed)
		_ = s.Close()
		p.client.CloseIdleConnections()
	})
	return p
}

// http1 is what remote sources speak. Faults are made of its messages.
func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// Set changes the plan. A script counts its requests from zero again.
func (p *Proxy) Set(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.past = decisions{asked: map[string]int{}, inARow: map[string]int{}}
	p.plan.Store(&plan)
}

// Counts gives the number of requests by the fault that was injected. Those of None were passed on
// unharmed.
func (p *Proxy) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Faults is the number of faults that were injected.
func (p *Proxy) Faults() (n int) {
	for k, c := range p.Counts() {
		if k != None {
			n += c
		}
	}
	return n
}

// ServeHTTP answers one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{proxy: p, plan: p.plan.Load(), w: w, r: r, entry: newRequest(r)}
	p.mu.Lock()
	x.kind, x.rng = p.past.decide(x.plan, r)
	p.mu.Unlock()
	defer func() { p.Log.Add(x.entry) }()
	if !x.sleep(x.plan.Delay) {
		return
	}
	x.run()
}

// count counts a request that is answered now.
func (p *Proxy) count(k Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[k]++
}

// sleep reports whether the client is still there afterwards.
func (x *exchange) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.r.Context().Done():
	case <-x.proxy.closed:
	}
	return false
}

// ask passes the request on to the server, with a header that the fault may have changed.
func (p *Proxy) ask(r *http.Request, change func(http.Header)) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = p.upstream.Scheme, p.upstream.Host
	if out.ContentLength == 0 {
		out.Body = nil // an empty body that is not nil would be sent chunked
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // otherwise Go adds its own
	}
	out.Header.Del("Connection")
	if change != nil {
		change(out.Header)
	}
	return p.client.RoundTrip(out)
}
