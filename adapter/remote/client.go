package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"
)

// client sends requests by HTTP/1.1. HTTP/2 would put all requests to a host on one connection,
// which halves the rate. A client never follows a redirect by itself: see redirect.go.
type client struct {
	http     *http.Client // for libraries; it sends by do, and returns redirects as they are
	anywhere http.RoundTripper
	guarded  http.RoundTripper // connects to public addresses only
	proxy    func(*http.Request) (*url.URL, error)
	closers  []*http.Transport
	logger   *slog.Logger
	patience time.Duration // for each byte of an answer
	certs    *tls.Config   // nil outside of tests
}

// Bounds of a client.
const (
	mostConnections = 256
	defaultPatience = 10 * time.Second
)

// newClient makes a client. Certificates are the system's, or those of SSL_CERT_FILE and
// SSL_CERT_DIR. Proxies are those of the environment.
func newClient(o Options) *client {
	c := &client{proxy: http.ProxyFromEnvironment, logger: o.Logger,
		patience: 3 * cmp.Or(o.Patience, defaultPatience)}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	c.http = &http.Client{Transport: c, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	if o.Transport != nil {
		c.anywhere, c.guarded = o.Transport, o.Transport
		return c
	}
	c.connect(newDialer())
	return c
}

// connect makes the transports of a client.
func (c *client) connect(d *dialer) {
	anywhere, guarded := c.newTransport(d.dial), c.newTransport(d.dialGuarded)
	anywhere.Proxy = func(r *http.Request) (*url.URL, error) { return c.proxy(r) }
	c.anywhere, c.guarded = anywhere, guarded
	c.closers = []*http.Transport{anywhere, guarded}
}

// dialContext is how a transport connects.
type dialContext func(ctx context.Context, network, address string) (net.Conn, error)

func (c *client) newTransport(dial dialContext) *http.Transport {
	t := &http.Transport{
		DialContext:           dial,
		TLSClientConfig:       c.certs,
		Protocols:             new(http.Protocols),
		MaxConnsPerHost:       mostConnections,
		MaxIdleConns:          2 * mostConnections,
		MaxIdleConnsPerHost:   mostConnections,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: c.patience,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// trail is what is known about the connection that brought an answer.
type trail struct {
	guarded bool // it may not lead to a private address
	private bool // the server has a private address
}

type trailKey struct{}

// trailOf returns the trail of a request that was sent or is to be sent.
func trailOf(ctx context.Context) trail {
	if t, ok := ctx.Value(trailKey{}).(*trail); ok {
		return *t
	}
	return trail{}
}

// do sends a request. Its errors hold no secret. If the request leads away from a public server,
// it is only sent to public addresses: see place.request.
func (c *client) do(r *http.Request) (*http.Response, error) {
	t := &trail{trailOf(r.Context()).guarded, isPrivateHost(r.URL.Hostname())}
	ctx := context.WithValue(r.Context(), trailKey{}, t)
	proxy, err := c.proxy(r)
	if err != nil {
		return nil, failed(r, err)
	}
	if proxy == nil { // else the address is the proxy's
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(i httptrace.GotConnInfo) { t.private = isPrivateConn(i.Conn) }})
	}
	ctx, end := context.WithCancelCause(ctx)
	r = r.Clone(ctx)
	r.Header.Set("Accept-Encoding", "identity")
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", "dequantfs")
	}
	send := c.anywhere
	if t.guarded && proxy == nil {
		send = c.guarded
	}
	a, err := send.RoundTrip(r)
	if err != nil {
		end(nil)
		return nil, failed(r, err)
	}
	a.Body = patiently(ctx, a.Body, c.patience, end)
	return a, nil
}

// failed describes a request that brought no answer.
func failed(r *http.Request, err error) error {
	return clean(&url.Error{Op: r.Method, URL: r.URL.String(), Err: explain(r.URL.Hostname(), err)})
}

// RoundTrip is do, for libraries that want an [http.RoundTripper].
func (c *client) RoundTrip(r *http.Request) (*http.Response, error) { return c.do(r) }

func (c *client) close() {
	for _, t := range c.closers {
		t.CloseIdleConnections()
	}
}

// isPrivateConn reports whether the other end of a connection has a private address. An address
// that is not known counts as public, because these may do less.
func isPrivateConn(conn net.Conn) bool {
	if conn == nil || conn.RemoteAddr() == nil {
		return false
	}
	a, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	return err == nil && isPrivate(a.Addr())
}

// explain puts the way out before errors of the transport that users can mend.
func explain(host string, err error) error {
	var (
		dns     *net.DNSError
		tlsFail *tls.CertificateVerificationError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return wayOut{"the proxy cannot be reached", "correct HTTPS_PROXY or HTTP_PROXY, or add " +
			host + " to NO_PROXY", false, err}
	case errors.As(err, &dns) && dns.IsNotFound:
		return wayOut{"there is no server " + host, "correct the name, or set HTTPS_PROXY if " +
			"this network needs a proxy", true, err}
	case errors.As(err, &tlsFail):
		return explainCertificate(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return wayOut{"nothing answers there", "correct the address, or start the server", true, err}
	case errors.As(err, new(tls.RecordHeaderError)):
		return wayOut{"the server does not speak TLS", "use http://", false, err}
	}
	return err
}

// explainCertificate is about a server that does not prove its name.
func explainCertificate(err error) error {
	var (
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
	)
	file := os.Getenv("SSL_CERT_FILE")
	_, unread := os.ReadFile(file)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return wayOut{"its certificate is not valid at this time", "renew it on the server, or " +
			"set the clock of this machine", false, err}
	case errors.As(err, &name):
		return wayOut{"its certificate is for another name", "use the name that it has", false, err}
	case file != "" && unread != nil:
		return wayOut{"its certificate is not trusted, and SSL_CERT_FILE cannot be read",
			"correct the name of the file", false, unread}
	}
	return wayOut{"its certificate is not trusted", "put that of its authority into a file and " +
		"set SSL_CERT_FILE to the file", false, err}
}

// wayOut is an error with the way out.
type wayOut struct {
	what, fix string
	absent    bool // there is no such server, so another one may be meant
	err       error
}

func (w wayOut) Error() string { return w.what + ": " + w.fix + " (" + w.err.Error() + ")" }
func (w wayOut) Unwrap() error { return w.err }
