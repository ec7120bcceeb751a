package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	victoria "github.com/VictoriaMetrics/metrics"

	"github.com/dequantfs/dequantfs/fs"
)

// metricsServer serves /metrics for Prometheus.
type metricsServer struct {
	listener net.Listener
	server   http.Server
}

// listenMetrics listens on ADDR, which is a port, :port or host:port. Without a
// host only this machine can connect.
func listenMetrics(addr string) (*metricsServer, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, flagError("metrics", addr, "an address such as :9100 or 10.0.0.1:9100")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, withHint(err,
			"give --metrics an address that is free, such as 127.0.0.1:0 for any port")
	}
	return &metricsServer{
		listener: &fewConnections{Listener: l, taken: make(chan struct{}, maxScrapers)},
		server: http.Server{
			ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout,
			IdleTimeout: scrapeIdle, MaxHeaderBytes: 8 << 10,
		},
	}, nil
}

// A connection to --metrics takes a descriptor and memory that the mount needs. So only few
// connections may be open at once, and only for a short time.
const (
	maxScrapers   = 16
	scrapeTimeout = 10 * time.Second // for a request, and for taking its answer
	scrapeIdle    = time.Minute      // between two of them
)

// fewConnections closes new connections at once while there are too many.
type fewConnections struct {
	net.Listener
	taken chan struct{} // full when there are too many
}

// Accept waits for a connection that does not exceed the limit.
func (l *fewConnections) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.taken <- struct{}{}:
			return &countedConnection{Conn: c, of: l}, nil
		default:
			c.Close()
		}
	}
}

// countedConnection makes room when it is closed.
type countedConnection struct {
	net.Conn
	of   *fewConnections
	once sync.Once
}

// Close closes the connection.
func (c *countedConnection) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.of.taken })
	return err
}

func (m *metricsServer) address() string { return m.listener.Addr().String() }

// serve answers until the server is closed.
func (m *metricsServer) serve(stats func() fs.Stats) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", expose(stats))
	m.server.Handler = onlyKnownHosts(mux)
	go m.server.Serve(m.listener)
}

// expose answers with the metrics. All statistics of one answer are from the same moment.
func expose(stats func() fs.Stats) http.HandlerFunc {
	victoria.ExposeMetadata(true)
	return func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		s := stats()
		writePage(&page, &s)
		w.Header().Set("Content-Type", exposition)
		_, _ = page.WriteTo(w) // if that fails, the client is gone
	}
}

// Close closes the server, if there is one.
func (m *metricsServer) Close() error {
	if m == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return errors.Join(m.server.Shutdown(ctx), ignoreClosed(m.listener.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// onlyKnownHosts refuses requests for host names other than localhost and the given names. A web
// page must not read the answers by a name that resolves to this machine.
func onlyKnownHosts(next http.Handler, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, names...) {
			http.Error(w, "this host name is not served", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether a host is an IP address, localhost or one of the names, with or without
// a port.
func knownHost(hostport string, names ...string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || slices.ContainsFunc(append(names, "localhost"), func(name string) bool {
		return strings.EqualFold(host, name)
	})
}
