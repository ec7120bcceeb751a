package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/fs"
	trial "github.com/dequantfs/dequantfs/testdata/size"
)

// taken counts the connections.
func (m *metricsServer) taken() chan struct{} { return m.listener.(*fewConnections).taken }

func serveMetrics(t *testing.T, addr string, stats fs.Stats,
	change ...func(*metricsServer)) *metricsServer {
	t.Helper()
	m, err := listenMetrics(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(m)
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

// A web page must not read the metrics by a name that resolves to this machine.
func TestMetricsRefuseForeignHosts(t *testing.T) {
	m := serveMetrics(t, "0", fs.Stats{})
	if !strings.HasPrefix(m.address(), "127.0.0.1:") {
		t.Errorf("without a host it listens on %s", m.address())
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:80": 200, "127.0.0.1": 200, "127.0.0.1:9": 200,
		"[::1]:9": 200, "10.1.2.3:9": 200,
		"evil.example": 403, "evil.example:80": 403, "127.0.0.1.evil.example": 403,
	} {
		if status, _ := get(t, m, host); status != want {
			t.Errorf("%q: status %d, want %d", host, status, want)
		}
	}
}

// TestMetricsHaveFewConnections connects far more often than is allowed. Connections beyond the
// limit are closed at once, and idle ones after a while. Then there is room again.
func TestMetricsHaveFewConnections(t *testing.T) {
	m := serveMetrics(t, ":0", fs.Stats{},
		func(m *metricsServer) { m.server.ReadTimeout = 500 * time.Millisecond })
	var open, closed atomic.Int64
	var wg sync.WaitGroup
	for range trial.Count(300, 3000) {
		c, err := net.Dial("tcp", m.address())
		if err != nil {
			t.Fatal(err)
		}
		open.Add(1)
		wg.Go(func() {
			defer c.Close()
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes of an answer to nothing", n)
			}
			closed.Add(1)
		})
		if n := len(m.taken()); n > maxScrapers {
			t.Fatalf("%d connections at once", n)
		}
	}
	wg.Wait()
	if open.Load() != closed.Load() {
		t.Errorf("%d of %d connections were closed", closed.Load(), open.Load())
	}
	if status, _ := get(t, m, "localhost"); status != 200 {
		t.Errorf("afterwards the status is %d", status)
	}
}

// TestMetricsDoNotWaitForSlowClients has clients that send a request byte by byte, that do not read
// the answers, and that fall silent.
func TestMetricsDoNotWaitForSlowClients(t *testing.T) {
	const patience = 200 * time.Millisecond
	m := serveMetrics(t, ":0", fs.Stats{}, func(m *metricsServer) {
		m.server.ReadTimeout, m.server.WriteTimeout = patience, patience
		m.server.IdleTimeout = patience
	})
	const request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, client := range map[string]func(c net.Conn) error{
		"slow": func(c net.Conn) error {
			for _, b := range []byte(strings.Repeat("GET / ", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return nil
				}
				time.Sleep(patience / 20)
			}
			return errors.New("all of its request was taken")
		},
		"deaf": func(c net.Conn) error {
			// However much the sockets buffer, writes fail once the server has closed the
			// connection.
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			for {
				if _, err := io.WriteString(c, request); errors.Is(err, os.ErrDeadlineExceeded) {
					return fmt.Errorf("its requests are held: %w", err)
				} else if err != nil {
					return nil
				}
			}
		},
		"idle": func(c net.Conn) error {
			if _, err := io.WriteString(c, request); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, c) // to the end
			return err
		},
	} {
		c, err := net.Dial("tcp", m.address())
		if err != nil {
			t.Fatal(err)
		}
		if err := client(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		eventually(t.Fatalf, func() error {
			if n := len(m.taken()); n > 0 {
				return fmt.Errorf("%s: %d connections are held", name, n)
			}
			return nil
		})
		c.Close()
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
