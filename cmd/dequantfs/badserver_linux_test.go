package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/stores"
)

// badServers never give a reader its bytes, and never quite stop.
var badServers = map[string]http.HandlerFunc{
	"a byte now and then": func(w http.ResponseWriter, r *http.Request) {
		var begin, end int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &begin, &end)
		w.Header().Set("Content-Length", fmt.Sprint(end-begin+1))
		w.WriteHeader(http.StatusPartialContent)
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte{0})
			_ = http.NewResponseController(w).Flush() // the reader may have gone
			time.Sleep(50 * time.Millisecond)
		}
	},
	"a header that does not end": func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 206 Partial Content\r\n")
		for err == nil {
			_, err = fmt.Fprint(conn, "X-More: 1\r\n")
			time.Sleep(50 * time.Millisecond)
		}
	},
	"redirects for ever": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Path+"?"+r.URL.RawQuery+"1")
		w.WriteHeader(http.StatusTemporaryRedirect)
	},
	"errors at once": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1000000")
		w.WriteHeader(http.StatusServiceUnavailable)
	},
}

// With little memory and many readers, a mount of a server that is of no use can be ended.
func TestAMountOfABadServerIsUnmounted(t *testing.T) {
	requireFUSE(t)
	for name, bad := range badServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			s := newSession(t)
			server := stores.HTTP(t, "")
			server.Put(t, "m", s.source)
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			var isBad atomic.Bool
			var asked atomic.Int64
			right := httputil.NewSingleHostReverseProxy(u)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
				r *http.Request) {
				if isBad.Load() {
					asked.Add(1)
					bad(w, r)
					return
				}
				right.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			place := server.At(front.URL)
			c := s.command("mount", place.Source("m"), s.mnt, "--layout", "hf", "--drain", "1s",
				"--remote-memory", "1MiB", "--quiet")
			c.Env = append(c.Env, place.Env()...)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			pid := s.status().PID
			isBad.Store(true)
			var readers []*exec.Cmd
			for range 4 {
				for _, f := range s.files() {
					if strings.HasSuffix(f, ".safetensors") {
						r := s.hanging(f)
						if err := r.Start(); err != nil {
							t.Fatal(err)
						}
						readers = append(readers, r)
					}
				}
			}
			patiently(t, "the server is asked", func() bool { return asked.Load() > 0 })
			began := time.Now()
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			patiently(t, "the process has ended", func() bool { return ended(pid) })
			t.Logf("%d readers, %d requests, ended after %v", len(readers), asked.Load(),
				time.Since(began))
			for _, r := range readers {
				var exit *exec.ExitError
				if err := r.Wait(); !errors.As(err, &exit) {
					t.Errorf("a reader ended with %v", err)
				}
				if said := r.Stderr.(*bytes.Buffer).String(); strings.Contains(said, "?") {
					t.Errorf("it said %s", said)
				}
			}
		})
	}
}
