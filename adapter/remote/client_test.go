package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRequestsAreHTTP1AndUncompressed(t *testing.T) {
	n := newNetwork()
	n.serve(t, "https", "store.test", func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		fmt.Fprintf(w, "%s %s %s", r.Proto, h.Get("Accept-Encoding"), h.Get("User-Agent"))
	}, "203.0.113.1")
	a, err := n.client(t).do(request(t, "https://store.test/"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if text, _ := io.ReadAll(a.Body); string(text) != "HTTP/1.1 identity dequantfs" {
		t.Errorf("the request was %s", text)
	}
}

func TestARequestIsLeftAsItIs(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "store.test", func(http.ResponseWriter, *http.Request) {}, "203.0.113.1")
	r := request(t, "http://store.test/")
	a, err := n.client(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if len(r.Header) != 0 {
		t.Errorf("the headers are now %v", r.Header)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "bytes")
	}, "203.0.113.1")
	c := n.client(t)
	for range 5 {
		a, err := c.do(request(t, "http://store.test/"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, a.Body)
		a.Body.Close()
	}
	if len(n.dials) != 1 {
		t.Errorf("5 requests made %d connections", len(n.dials))
	}
}

// Many requests at once need as many connections. Afterwards these are kept for the next requests.
func TestManyConnectionsAreKept(t *testing.T) {
	const many = 64
	var all sync.WaitGroup
	n := newNetwork()
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, _ *http.Request) {
		all.Done()
		all.Wait() // all requests are here
		fmt.Fprint(w, "bytes")
	}, "203.0.113.1")
	var mu sync.Mutex
	dials := 0
	c := n.client(t)
	c.connect(&dialer{names: map[string]*resolved{}, lookup: n.lookup,
		to: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			dials++
			mu.Unlock()
			return new(net.Dialer).DialContext(ctx, network, n.servers[address])
		}})
	for range 3 {
		all.Add(many)
		var askers sync.WaitGroup
		for range many {
			askers.Go(func() {
				a, err := c.do(request(t, "http://store.test/"))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
			})
		}
		askers.Wait()
	}
	if dials != many {
		t.Errorf("3 times %d requests at once made %d connections", many, dials)
	}
}

func TestAllAddressesOfANameAreUsedInTurn(t *testing.T) {
	n := newNetwork()
	addresses := []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
	}, addresses...)
	c := n.client(t)
	for range 6 {
		a, err := c.do(request(t, "http://store.test/"))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
	for _, a := range addresses {
		if got := count(n.dials, a+":80"); got != 2 {
			t.Errorf("%s was connected to %d times of 6", a, got)
		}
	}
}

func count(list []string, s string) (n int) {
	for _, l := range list {
		if l == s {
			n++
		}
	}
	return n
}

func TestAnAddressWithoutServerIsPassedOver(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
	}, "203.0.113.1")
	n.names["store.test"] = []string{"2001:db8::1", "203.0.113.1", "2001:db8::2"}
	c := n.client(t)
	for range 4 {
		a, err := c.do(request(t, "http://store.test/"))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
}

// An address that does not answer at all must not keep the others waiting.
func TestASilentAddressIsPassedOver(t *testing.T) {
	released := make(chan struct{})
	d := &dialer{names: map[string]*resolved{},
		lookup: func(context.Context, string) ([]netip.Addr, error) {
			silent, good := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.1")
			return []netip.Addr{silent, good}, nil
		},
		to: func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "[") {
				<-ctx.Done() // it is told that it lost
				close(released)
				return nil, ctx.Err()
			}
			a, _ := net.Pipe()
			return a, nil
		}}
	conn, err := d.dial(t.Context(), "tcp", "store.test:443")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-released
}

func TestAddressesTakeTurnsInTheirFamily(t *testing.T) {
	v := func(list ...string) (all []netip.Addr) {
		for _, a := range list {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for _, c := range []struct {
		turn int
		have []netip.Addr
		want []netip.Addr
	}{
		{0, v("1.1.1.1"), v("1.1.1.1")},
		{5, v("1.1.1.1", "1.1.1.2"), v("1.1.1.2", "1.1.1.1")},
		{0, v("2::1", "2::2", "1.1.1.1"), v("2::1", "1.1.1.1", "2::2")},
		{1, v("2::1", "2::2", "1.1.1.1"), v("2::2", "1.1.1.1", "2::1")},
		{1, v("1.1.1.1", "2::1", "1.1.1.2", "2::2"), v("1.1.1.2", "2::2", "1.1.1.1", "2::1")},
		{0, v("::ffff:1.1.1.1", "2::1"), v("1.1.1.1", "2::1")},
	} {
		if got := inTurn(c.have, c.turn); !slices.Equal(got, c.want) {
			t.Errorf("turn %d of %v is %v, not %v", c.turn, c.have, got, c.want)
		}
	}
}

func TestAServerThatNeverAnswersIsGivenUp(t *testing.T) {
	n := newNetwork()
	end := make(chan struct{})
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
		}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}, "203.0.113.1")
	defer close(end)
	c := n.client(t)
	d := &dialer{names: map[string]*resolved{}, lookup: n.lookup, to: n.dial}
	c.patience = 20 * time.Millisecond
	c.connect(d)
	_, err := c.do(request(t, "http://store.test/"))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the error is %v", err)
	}
	a, err := c.do(request(t, "http://store.test/half"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if string(text) != "half" || !errors.Is(err, errIdle) || !errors.As(err, &timeout) {
		t.Errorf("the answer is %q, and the error %v", text, err)
	}
}

// Only the server counts: a reader may take its time.
func TestAReaderThatPausesLosesNothing(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "store.test", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", 1<<20))
	}, "203.0.113.1")
	c := n.client(t)
	c.patience = 50 * time.Millisecond
	a, err := c.do(request(t, "http://store.test/"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	p := make([]byte, 1<<19)
	for range 2 {
		if _, err := io.ReadFull(a.Body, p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * c.patience)
	}
}

func TestTransportErrorsTellTheWayOut(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	signed := httptest.NewTLSServer(http.NotFoundHandler())
	defer signed.Close()
	c := newClient(Options{})
	defer c.close()
	c.proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	for _, test := range []struct{ address, want string }{
		{closed.URL, "nothing answers there: correct the address, or start the server"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS: use http://"},
		{signed.URL, "not trusted: put that of its authority into a file and set SSL_CERT_FILE"},
		{"http://missing.invalid/", "there is no server missing.invalid: correct the name"},
	} {
		_, err := c.do(request(t, test.address))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.address, err)
		}
	}
}

func TestErrorsOfCertificatesTellTheWayOut(t *testing.T) {
	signed := httptest.NewTLSServer(http.NotFoundHandler())
	defer signed.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(signed.Certificate())
	late := func() time.Time { return signed.Certificate().NotAfter.Add(time.Hour) }
	for _, test := range []struct {
		address, file string
		certs         *tls.Config
		want          string
	}{
		{signed.URL, "", &tls.Config{RootCAs: trusted, Time: late},
			"not valid at this time: renew it on the server, or set the clock of this machine ("},
		{strings.Replace(signed.URL, "127.0.0.1", "localhost", 1), "", &tls.Config{RootCAs: trusted},
			"for another name: use the name that it has ("},
		{signed.URL, "/missing.pem", nil,
			"SSL_CERT_FILE cannot be read: correct the name of the file (open /missing.pem: "},
	} {
		t.Setenv("SSL_CERT_FILE", test.file)
		c := newClient(Options{})
		c.certs = test.certs
		c.connect(newDialer())
		_, err := c.do(request(t, test.address))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %s", err, test.want)
		}
		c.close()
	}
}

func TestAProxyThatDoesNotAnswerIsNamed(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	c := newClient(Options{})
	defer c.close()
	for _, proxy := range []string{closed.URL, "http://missing.invalid:3128"} {
		c.proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy) }
		_, err := c.do(request(t, "https://store.test/m/"))
		want := "the proxy cannot be reached: correct HTTPS_PROXY or HTTP_PROXY, or add store.test to NO_PROXY"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", proxy, err)
		}
	}
}

// The certificates of a process are read once, so another process reads them.
func TestSSL_CERT_FILEIsTrusted(t *testing.T) {
	if address := os.Getenv("REMOTE_TEST_ADDRESS"); address != "" {
		a, err := newClient(Options{}).do(request(t, address))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		return
	}
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, trusted := range map[string]bool{file: true, os.DevNull: false} {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), "REMOTE_TEST_ADDRESS="+s.URL, "SSL_CERT_FILE="+name)
		out, err := again.CombinedOutput()
		if (err == nil) != trusted || !strings.Contains(string(out), t.Name()) {
			t.Errorf("with %s: %v\n%s", name, err, out)
		}
	}
}

func TestProxiesOfTheEnvironmentAreUsed(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		fmt.Fprint(w, "from the proxy")
	}))
	defer proxy.Close()
	c := newClient(Options{})
	defer c.close()
	c.proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	// A guarded request may use it, although its address is private.
	p := &place{&url.URL{Scheme: "http", Host: "store.test", Path: "/b"}, true}
	guarded, err := p.request(t.Context(), http.MethodGet)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{request(t, "http://store.test/a"), guarded} {
		a, err := c.do(r)
		if err != nil {
			t.Fatal(err)
		}
		if trailOf(a.Request.Context()).private {
			t.Error("the address of the proxy counts as that of the server")
		}
		a.Body.Close()
	}
	if want := []string{"http://store.test/a", "http://store.test/b"}; !slices.Equal(asked, want) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}
