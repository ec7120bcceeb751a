package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

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
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		statsCollector{stats},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	m.server.Handler = onlyKnownHosts(mux)
	go m.server.Serve(m.listener)
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

// onlyKnownHosts refuses requests for host names other than localhost. A web page must not read the
// answers by a name that resolves to this machine.
func onlyKnownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host) {
			http.Error(w, "this host name is not served", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether a host is an IP address or localhost, with or without a port.
func knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

// statsCollector passes the statistics of a filesystem to Prometheus. All values of one scrape are
// from the same moment.
type statsCollector struct{ stats func() fs.Stats }

// metric is one statistic in the form of Prometheus.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s *fs.Stats) float64
}

func counter(name, help string, value func(s *fs.Stats) int64) metric {
	return metric{prometheus.NewDesc("dequantfs_"+name, help, nil, nil), prometheus.CounterValue,
		func(s *fs.Stats) float64 { return float64(value(s)) }}
}

func gauge(name, help string, value func(s *fs.Stats) float64) metric {
	desc := prometheus.NewDesc("dequantfs_"+name, help, nil, nil)
	return metric{desc, prometheus.GaugeValue, value}
}

var metrics = []metric{
	counter("served_bytes_total", "Bytes given to readers; the kernel's page cache serves more.",
		func(s *fs.Stats) int64 { return s.Bytes }),
	counter("reads_total", "Reads answered.", func(s *fs.Stats) int64 { return s.Reads }),
	counter("source_read_bytes_total", "Bytes read from source files.",
		func(s *fs.Stats) int64 { return s.SourceBytes }),
	counter("source_reads_total", "Reads of source files.",
		func(s *fs.Stats) int64 { return s.Preads }),
	counter("source_unused_bytes_total", "Bytes read ahead from source files but not needed.",
		func(s *fs.Stats) int64 { return s.Unused }),
	counter("cache_hits_total", "Units found in the tensor cache.",
		func(s *fs.Stats) int64 { return s.Hits }),
	counter("cache_misses_total", "Units that had to be waited for.",
		func(s *fs.Stats) int64 { return s.Misses }),
	counter("cache_fills_total", "Units computed.", func(s *fs.Stats) int64 { return s.Fills }),
	counter("saturated_total", "Values beyond the largest FP8 code, each time they were computed.",
		func(s *fs.Stats) int64 { return s.Saturated }),
	counter("infinite_total", "Values that are infinite in F16, each time they were computed.",
		func(s *fs.Stats) int64 { return s.Infinite }),
	counter("cache_evictions_total", "Units evicted from the tensor cache.",
		func(s *fs.Stats) int64 { return s.Evictions }),
	counter("cache_refetches_total",
		"Units computed again that were evicted before they were read to the end.",
		func(s *fs.Stats) int64 { return s.Refetches }),
	counter("interrupted_total", "Reads given up by the reader.",
		func(s *fs.Stats) int64 { return s.Interrupted }),
	counter("panics_total", "Panics caught.", func(s *fs.Stats) int64 { return s.Panics }),
	gauge("read_ahead_bytes", "Bytes held for what is read ahead of the source.",
		func(s *fs.Stats) float64 { return float64(s.ReadAhead) }),
	gauge("cache_used_bytes", "Bytes in the tensor cache.",
		func(s *fs.Stats) float64 { return float64(s.CacheUsed) }),
	gauge("cache_budget_bytes", "Budget of the tensor cache.",
		func(s *fs.Stats) float64 { return float64(s.CacheBudget) }),
	gauge("cache_too_small", "1 if the budget is too small for what is read at once.",
		func(s *fs.Stats) float64 { return truth(s.TooSmall) }),
	gauge("waiting_readers", "Readers that wait for a unit.",
		func(s *fs.Stats) float64 { return float64(s.Waiting) }),
	gauge("active_reads", "Reads under way.",
		func(s *fs.Stats) float64 { return float64(s.Active) }),
	gauge("open_files", "Files that readers have open.",
		func(s *fs.Stats) float64 { return float64(s.OpenFiles) }),
	gauge("stalled_source_files", "Source files that have not answered for seconds.",
		func(s *fs.Stats) float64 { return float64(s.Stalled) }),
	gauge("oldest_request_seconds", "Age of the oldest read under way.",
		func(s *fs.Stats) float64 { return s.OldestRequest.Seconds() }),
}

var (
	errorsDesc = prometheus.NewDesc("dequantfs_errors_total", "Reads that failed, by kind.",
		[]string{"kind"}, nil)
	latencyDesc = prometheus.NewDesc("dequantfs_read_seconds",
		"How long reads took, by the kind of recipe.", []string{"recipe"}, nil)
)

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c statsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
	ch <- errorsDesc
	ch <- latencyDesc
}

// Collect implements prometheus.Collector.
func (c statsCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for _, m := range metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s))
	}
	for kind, n := range s.ErrorKinds {
		ch <- prometheus.MustNewConstMetric(errorsDesc, prometheus.CounterValue, float64(n), kind)
	}
	for kind, h := range s.Latency {
		ch <- prometheus.MustNewConstHistogram(latencyDesc, h.Count, h.Sum, cumulative(h), kind)
	}
}

// cumulative counts the observations up to each bound, as Prometheus requires.
func cumulative(h fs.Histogram) map[float64]uint64 {
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		buckets[bound] = sum
	}
	return buckets
}
