package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// trickle sends a byte now and then, for ever.
func trickle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	for r.Context().Err() == nil {
		fmt.Fprint(w, " ")
		_ = http.NewResponseController(w).Flush() // the client may have gone
		time.Sleep(10 * time.Millisecond)
	}
}

// A body that trickles ends, like one that stops. Otherwise a listing could take days.
func TestATricklingBodyEnds(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(trickle))
	defer s.Close()
	c := newClient(Options{Patience: 100 * time.Millisecond})
	defer c.close()
	for what, read := range map[string]func(a *http.Response) error{
		"a page":    func(a *http.Response) error { _, err := io.ReadAll(a.Body); return err },
		"a listing": func(a *http.Response) error { _, err := readPage(a); return err },
		"an excerpt": func(a *http.Response) error {
			_ = excerpt(a)
			return os.ErrDeadlineExceeded // it only has to end
		},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := read(a); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		_ = a.Body.Close()
	}
}

// A body that is slow, but not too slow, is read to its end.
func TestASlowBodyIsRead(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 20 {
			fmt.Fprint(w, strings.Repeat("x", progress))
			_ = http.NewResponseController(w).Flush() // the client may have gone
			time.Sleep(20 * time.Millisecond)
		}
	}))
	defer s.Close()
	c := newClient(Options{Patience: 50 * time.Millisecond})
	defer c.close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if all, err := io.ReadAll(a.Body); err != nil || len(all) != 20*progress {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}
