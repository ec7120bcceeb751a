package serve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// dial connects to the server and sends a text.
func (s *served) dial(text string) net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * size.Patience()); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came: " + what)
		}
	}
}

// A client that takes none of an answer is cut off, and one that is slow but takes some is not.
func TestSlowClientsAreBounded(t *testing.T) {
	s := serveSynth(t, Options{Stall: 300 * time.Millisecond})
	want := s.files("hf")["model-00001-of-000002.safetensors"]
	request := "GET " + shard + " HTTP/1.1\r\nHost: x\r\n\r\n"
	deaf := s.dial(strings.Repeat(request, 40)) // more than sockets hold
	eventually(t, "the end of an answer that nobody takes", func() bool {
		return s.h.Stats().Aborted > 0 && s.h.Stats().Active == 0
	})
	deaf.Close()

	r, err := http.ReadResponse(newTrickle(s.dial(request)), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("a slow client gets %d of %d bytes: %v", len(got), len(want), err)
	}
}

// A client that goes away frees its answer, and goes on with a range.
func TestKilledClientsResume(t *testing.T) {
	s := serveSynth(t, Options{})
	want := s.files("hf")["model-00001-of-000002.safetensors"]
	r, err := http.Get(s.url + shard)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)/3)
	if _, err := io.ReadFull(r.Body, got); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	eventually(t, "the end of the answer", func() bool { return s.h.Stats().Active == 0 })
	rest := s.do("GET", shard, "Range", fmt.Sprintf("bytes=%d-", len(got)), "If-Range",
		r.Header.Get("ETag"))
	if rest.status != http.StatusPartialContent || !bytes.Equal(append(got, rest.body...), want) {
		t.Errorf("%d, %d bytes in all, want %d", rest.status, len(got)+len(rest.body), len(want))
	}
}

// A request that is too large or has a body is refused, and its connection is closed.
func TestOddRequestsAreRefused(t *testing.T) {
	s := serveSynth(t, Options{})
	for name, text := range map[string]string{
		"431": "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"400": "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
		"400 ": "POST /api/models/tiny/hf/paths-info/main HTTP/1.1\r\nHost: x\r\n" +
			"Content-Type: application/json\r\nContent-Length: 3000000\r\n\r\n{\"paths\": [\"" +
			strings.Repeat("x", 2<<20),
	} {
		c := s.dial(text)
		c.SetReadDeadline(time.Now().Add(60 * size.Patience()))
		all, err := io.ReadAll(c)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: the connection stays open", name)
		}
		if !strings.Contains(string(all), "HTTP/1.1 "+strings.TrimSpace(name)) {
			t.Errorf("%s: %.80s, %v", name, all, err)
		}
	}
}

// trickle reads little at a time, with pauses.
type trickle struct{ r io.Reader }

func newTrickle(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(trickle{r}, 16<<10) }

// Read reads after a pause.
func (t trickle) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return t.r.Read(p)
}
