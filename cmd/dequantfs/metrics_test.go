package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/fs"
)

func serveMetrics(t *testing.T, addr string, stats fs.Stats) *metricsServer {
	t.Helper()
	m, err := listenMetrics(addr)
	if err != nil {
		t.Fatal(err)
	}
	m.serve(func() fs.Stats { return stats })
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func get(t *testing.T, m *metricsServer, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+m.address()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestMetricsSayWhatStatsSay(t *testing.T) {
	m := serveMetrics(t, ":0", fs.Stats{
		Bytes: 12345, SourceBytes: 678, Hits: 3, Fills: 4, Evictions: 5, Waiting: 6,
		OldestRequest: 1500 * time.Millisecond,
		ErrorKinds:    map[string]int64{"EIO": 2},
		Latency: map[string]fs.Histogram{"dequantize": {
			Bounds: []float64{0.1, 1}, Counts: []uint64{2, 3, 1}, Count: 6, Sum: 4.5}},
	})
	status, body := get(t, m, "localhost")
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, line := range []string{
		"dequantfs_served_bytes_total 12345",
		"dequantfs_source_read_bytes_total 678",
		"dequantfs_cache_hits_total 3",
		"dequantfs_cache_fills_total 4",
		"dequantfs_cache_evictions_total 5",
		"dequantfs_waiting_readers 6",
		"dequantfs_oldest_request_seconds 1.5",
		`dequantfs_errors_total{kind="EIO"} 2`,
		`dequantfs_read_seconds_bucket{recipe="dequantize",le="0.1"} 2`,
		`dequantfs_read_seconds_bucket{recipe="dequantize",le="1"} 5`,
		`dequantfs_read_seconds_bucket{recipe="dequantize",le="+Inf"} 6`,
		`dequantfs_read_seconds_sum{recipe="dequantize"} 4.5`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// A page in somebody's browser must not read them by a name that resolves to this machine.
func TestMetricsRefuseForeignHosts(t *testing.T) {
	m := serveMetrics(t, "0", fs.Stats{})
	if !strings.HasPrefix(m.address(), "127.0.0.1:") {
		t.Errorf("without a host it listens on %s", m.address())
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:80": 200, "127.0.0.1": 200, "127.0.0.1:9": 200, "[::1]:9": 200, "10.1.2.3:9": 200,
		"evil.example": 403, "evil.example:80": 403, "127.0.0.1.evil.example": 403,
	} {
		if status, _ := get(t, m, host); status != want {
			t.Errorf("%q: status %d, want %d", host, status, want)
		}
	}
}

func TestMetricsAddresses(t *testing.T) {
	for _, addr := range []string{"a:b:c", "nowhere.invalid:1", "1.2.3.4:x", "127.0.0.1:99999"} {
		if m, err := listenMetrics(addr); err == nil {
			m.Close()
			t.Errorf("%s: listens on %s", addr, m.address())
		}
	}
}
