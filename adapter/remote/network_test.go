package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

// network is names, addresses and servers that only the tests know.
type network struct {
	names   map[string][]string // addresses of names
	servers map[string]string   // maps an address with its port to that of a real server
	roots   *x509.CertPool
	dials   []string // addresses that were connected to
}

func newNetwork() *network {
	return &network{map[string][]string{}, map[string]string{}, x509.NewCertPool(), nil}
}

// serve starts a server for a name at addresses. It has the usual port of its scheme.
func (n *network) serve(t *testing.T, scheme, name string, h http.HandlerFunc,
	addresses ...string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	port := "80"
	if scheme == "https" {
		port = "443"
		s.EnableHTTP2 = true
		s.StartTLS()
		n.roots.AddCert(s.Certificate())
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	n.names[name] = addresses
	for _, a := range addresses {
		n.servers[net.JoinHostPort(a, port)] = s.Listener.Addr().String()
	}
}

// client returns a client in the network.
func (n *network) client(t *testing.T) *client {
	t.Helper()
	d := &dialer{names: map[string]*resolved{}, lookup: n.lookup, to: n.dial}
	// The certificates of test servers are for this name.
	certs := &tls.Config{RootCAs: n.roots, ServerName: "example.com"}
	c := &client{certs: certs, patience: 10 * time.Second,
		proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}
	c.connect(d)
	t.Cleanup(c.close)
	return c
}

func (n *network) lookup(_ context.Context, host string) (list []netip.Addr, err error) {
	for _, a := range n.names[host] {
		list = append(list, netip.MustParseAddr(a))
	}
	return list, nil
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.dials = append(n.dials, address)
	to, ok := n.servers[address]
	if !ok {
		return nil, fmt.Errorf("no server at %s", address)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	return placed{conn, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}, nil
}

// placed is a connection to an address of the network.
type placed struct {
	net.Conn
	at net.Addr
}

func (p placed) RemoteAddr() net.Addr { return p.at }

func request(t *testing.T, address string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
