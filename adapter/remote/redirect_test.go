package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// lead is a server that redirects to an address.
func lead(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
}

func secretRequest(t *testing.T, address string) *http.Request {
	r := request(t, address)
	r.Header.Set("Authorization", "Bearer hf_0123456789abcdef")
	r.Header.Set("Cookie", "session=1")
	r.Header.Set("X-Amz-Security-Token", "aws")
	r.Header.Set("X-Hub-Secret", "1")
	r.Header.Set("Range", "bytes=0-9")
	return r
}

// echo answers with the headers that have credentials, and with the range.
func echo(w http.ResponseWriter, r *http.Request) {
	for name := range r.Header {
		switch name {
		case "Authorization", "Cookie", "X-Amz-Security-Token", "X-Hub-Secret", "Range":
			fmt.Fprintln(w, name)
		}
	}
}

func TestCredentialsStayInTheirOrigin(t *testing.T) {
	n := newNetwork()
	hub := http.NewServeMux()
	hub.HandleFunc("/end", echo)
	hub.Handle("/near", lead("/end"))
	hub.Handle("/full", lead("https://HUB.test:443/end"))
	hub.Handle("/other", lead("https://cdn.test/end"))
	hub.Handle("/there-and-back", lead("https://cdn.test/back"))
	hub.Handle("/port", lead("https://hub.test:444/end"))
	n.serve(t, "https", "hub.test", hub.ServeHTTP, "203.0.113.1")
	n.names["HUB.test"] = n.names["hub.test"]
	n.servers["203.0.113.1:444"] = n.servers["203.0.113.1:443"]
	cdn := http.NewServeMux()
	cdn.HandleFunc("/end", echo)
	cdn.Handle("/back", lead("https://hub.test/end"))
	n.serve(t, "https", "cdn.test", cdn.ServeHTTP, "203.0.113.2")
	n.serve(t, "http", "plain.test", lead("https://plain.test/end").ServeHTTP, "203.0.113.3")
	n.serve(t, "https", "plain.test", echo, "203.0.113.3")
	c := n.client(t)
	for address, want := range map[string]int{
		"https://hub.test/end": 5, "https://hub.test/near": 5, "https://hub.test/full": 5,
		"https://hub.test/other": 1, "https://hub.test/there-and-back": 1,
		"https://hub.test/port": 1, "http://plain.test/end": 1,
	} {
		a, err := c.follow(secretRequest(t, address))
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		text, _ := io.ReadAll(a.Body)
		a.Body.Close()
		lines := strings.Fields(string(text))
		if len(lines) != want || !strings.Contains(string(text), "Range") {
			t.Errorf("%s: the last server got %q", address, lines)
		}
	}
}

func TestLeavingTheOriginIsTold(t *testing.T) {
	n := newNetwork()
	hub := http.NewServeMux()
	hub.Handle("/old", lead("/new"))
	hub.Handle("/new", lead("https://cdn.test/file?X-Amz-Signature=0123"))
	n.serve(t, "https", "hub.test", hub.ServeHTTP, "203.0.113.1")
	a, p, err := n.client(t).steps(secretRequest(t, "https://hub.test/old"), new(int))
	if err != nil || p == nil {
		t.Fatal(p, err)
	}
	const signed = "https://cdn.test/file?X-Amz-Signature=0123"
	if a.Request.URL.Path != "/new" || p.url.String() != signed {
		t.Errorf("%v leads to %v", a.Request.URL, p.url)
	}
	if !p.guarded {
		t.Error("a place that a public server names is not guarded")
	}
	r, err := p.request(t.Context(), http.MethodGet)
	if err != nil || len(r.Header) != 0 {
		t.Errorf("the request has headers %v (%v)", r.Header, err)
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "inside.test", echo, "10.0.0.7")
	n.names["meta.test"] = []string{"169.254.169.254"}
	n.servers["127.0.0.1:80"] = n.servers["10.0.0.7:80"]
	n.servers["169.254.169.254:80"] = n.servers["10.0.0.7:80"]
	mixed := []string{"10.0.0.7", "127.0.0.1"}
	n.names["mixed.test"] = mixed
	n.serve(t, "http", "hop.test", lead("http://inside.test/").ServeHTTP, "203.0.113.9")
	for _, c := range []struct{ from, to, want string }{
		{"http", "", "its Location is not an address"},
		{"http", "http://", "its Location is not an address"},
		{"http", "http://[::1", "its Location is not an address"},
		{"http", "ftp://other.test/", "ftp:// is neither http nor https"},
		{"http", "file:///etc/passwd", "its Location is not an address"},
		{"http", "file://host/etc/passwd", "file:// is neither http nor https"},
		{"http", "gopher://other.test/", "gopher:// is neither http nor https"},
		{"https", "http://other.test/a?sig=1", "from https to http, http://other.test/a"},
		{"http", "http://me:you@other.test/", "an address with a user name, http://other.test/"},
		{"http", "http://127.0.0.1/", "to a private address, http://127.0.0.1/"},
		{"http", "http://localhost:8080/", "to a private address, http://localhost:8080/"},
		{"http", "http://169.254.169.254/latest/meta-data", "to a private address"},
		{"http", "http://[::1]/", "to a private address"},
		{"http", "http://[::ffff:10.0.0.7]/", "to a private address"},
		{"http", "http://inside.test/", "inside.test is the private address 10.0.0.7"},
		{"http", "http://meta.test/", "meta.test is the private address 169.254.169.254"},
		{"http", "http://mixed.test/", "mixed.test is the private address"},
		{"http", "http://hop.test/", "inside.test is the private address 10.0.0.7"},
		{"http", "/", "more than 5 times"},
	} {
		n.serve(t, c.from, "public.test", lead(c.to), "203.0.113.1")
		a, err := n.client(t).follow(request(t, c.from+"://public.test/"))
		switch {
		case err == nil:
			a.Body.Close()
			t.Errorf("%q was followed", c.to)
		case !errors.Is(err, errRedirect) || !strings.Contains(err.Error(), c.want):
			t.Errorf("%q: %v", c.to, err)
		case strings.Contains(err.Error(), "sig=") || strings.Contains(err.Error(), "you"):
			t.Errorf("%q: the error has a secret: %v", c.to, err)
		}
	}
}

// Not one request reaches the private server, whatever a public one answers.
func TestAPrivateServerIsNotAskedForAPublicOne(t *testing.T) {
	n := newNetwork()
	asked := 0
	count := func(http.ResponseWriter, *http.Request) { asked++ }
	n.serve(t, "http", "inside.test", count, "192.168.1.1")
	n.serve(t, "http", "public.test", lead("http://inside.test/"), "203.0.113.1")
	c := n.client(t)
	// A connection for an ordinary request is there already.
	a, err := c.do(request(t, "http://inside.test/"))
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if _, err := c.follow(request(t, "http://public.test/")); !errors.Is(err, errRedirect) {
		t.Errorf("the error is %v", err)
	}
	if asked != 1 {
		t.Errorf("the private server was asked %d times", asked)
	}
}

func TestAPrivateServerMayLeadAnywhere(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "public.test", echo, "203.0.113.1")
	n.serve(t, "http", "other.test", echo, "127.0.0.2")
	for _, to := range []string{"http://other.test/", "http://public.test/"} {
		n.serve(t, "http", "inside.test", lead(to), "10.0.0.7")
		a, err := n.client(t).follow(request(t, "http://inside.test/"))
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		a.Body.Close()
	}
}

// A name that is public when it is looked up first and private later is caught.
func TestANameThatChangesItsAddressIsRefused(t *testing.T) {
	n := newNetwork()
	n.serve(t, "http", "inside.test", echo, "10.0.0.7")
	n.serve(t, "http", "cdn.test", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
	}, "203.0.113.2")
	n.serve(t, "http", "public.test", lead("http://cdn.test/"), "203.0.113.1")
	c := n.client(t)
	_, p, err := c.steps(request(t, "http://public.test/"), new(int))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		r, err := p.request(t.Context(), http.MethodGet)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.do(r)
		if err == nil {
			a.Body.Close()
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	n.names["cdn.test"] = []string{"10.0.0.7"}
	c.connect(&dialer{names: map[string]*resolved{}, lookup: n.lookup, to: n.dial})
	if err := ask(); !errors.Is(err, errRedirect) {
		t.Errorf("the error is %v", err)
	}
}

func TestPrivateAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "127.255.0.1": true, "10.1.2.3": true, "172.16.0.1": true,
		"172.32.0.1": false, "192.168.0.1": true, "169.254.169.254": true, "100.100.100.200": true,
		"100.128.0.1": false, "168.63.129.16": true, "168.63.129.17": false, "0.0.0.0": true,
		"0.1.2.3": true, "255.255.255.255": true, "240.0.0.1": true, "224.0.0.1": true,
		"192.0.0.192": true, "198.19.0.1": true, "8.8.8.8": false, "203.0.113.1": false,
		"::1": true, "::": true, "fe80::1": true, "fe80::1%eth0": true, "fd00:ec2::254": true,
		"fec0::1": true, "ff02::1": true, "2606:4700::1111": false, "::ffff:127.0.0.1": true,
		"::ffff:8.8.8.8": false, "::127.0.0.1": true, "64:ff9b::7f00:1": true,
		"64:ff9b::808:808": false, "2002:7f00:1::": true, "2002:808:808::": false,
		"2001:0:1::": true,
	} {
		if got := isPrivate(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is private: %v", address, got)
		}
	}
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "a.localhost": true, "10.0.0.1": true,
		"8.8.8.8": false, "localhost.example": false, "store.test": false,
	} {
		if got := isPrivateHost(host); got != want {
			t.Errorf("%s is private: %v", host, got)
		}
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://a.test/x", "https://A.test:443/y", true},
		{"http://a.test/x", "http://a.test:80/", true},
		{"https://a.test/", "http://a.test/", false},
		{"https://a.test/", "https://a.test:444/", false},
		{"https://a.test/", "https://b.a.test/", false},
		{"https://[::1]/", "https://[::1]:443/", true},
	} {
		a, _ := url.Parse(c.a)
		b, _ := url.Parse(c.b)
		if (origin(a) == origin(b)) != c.same {
			t.Errorf("%s and %s are of the same origin: %v", c.a, c.b, !c.same)
		}
	}
}
