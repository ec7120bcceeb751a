package remote

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// answerOf parses an answer to a request for bytes 10-19 of an object of 100 bytes.
func answerOf(t *testing.T, status string, headers ...string) *http.Response {
	t.Helper()
	text := "HTTP/1.1 " + status + "\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnswersAreComparedWithTheirRequests(t *testing.T) {
	const ok, length, tag = "206 Partial Content", "Content-Length: 10", `ETag: "v1"`
	for _, c := range []struct {
		name, status string
		headers      []string
		want         error
		says         string
	}{
		{"right", ok, []string{length, tag, "Content-Range: bytes 10-19/100"}, nil, ""},
		{"identity", ok, []string{length, tag, "Content-Range: bytes 10-19/100",
			"Content-Encoding: identity"}, nil, ""},
		{"chunked", ok, []string{"Transfer-Encoding: chunked", tag, "Content-Range: bytes 10-19/100"}, nil, ""},
		{"another begin", ok, []string{length, tag, "Content-Range: bytes 11-20/100"}, errAnswer, "11-20"},
		{"shorter", ok, []string{length, tag, "Content-Range: bytes 10-18/100"}, errAnswer, "10-18"},
		{"longer", ok, []string{length, tag, "Content-Range: bytes 10-20/100"}, errAnswer, "10-20"},
		{"another length", ok,
			[]string{"Content-Length: 11", tag, "Content-Range: bytes 10-19/100"}, errAnswer,
			"Content-Length 11 instead of 10"},
		{"another size", ok, []string{length, tag, "Content-Range: bytes 10-19/101"},
			source.ErrChanged, "has 101 bytes, and had 100"},
		{"unknown size", ok, []string{length, tag, "Content-Range: bytes 10-19/*"}, errAnswer, "10-19/*"},
		{"no range", ok, []string{length, tag}, errAnswer, `Content-Range ""`},
		{"a range with a sign", ok, []string{length, tag, "Content-Range: bytes +10-19/100"}, errAnswer, "+10"},
		{"a range in another unit", ok, []string{length, tag, "Content-Range: lines 10-19/100"},
			errAnswer, "lines"},
		{"several ranges", ok,
			[]string{length, tag, "Content-Type: multipart/byteranges; boundary=x"}, errAnswer,
			"Content-Range"},
		{"two headers of a range", ok, []string{length, tag, "Content-Range: bytes 10-19/100",
			"Content-Range: bytes 20-29/100"}, errAnswer, "2 headers Content-Range"},
		{"compressed", ok, []string{length, tag, "Content-Range: bytes 10-19/100",
			"Content-Encoding: gzip"}, errAnswer, "compressed"},
		{"another ETag", ok, []string{length, `ETag: "v2"`, "Content-Range: bytes 10-19/100"},
			source.ErrChanged, `"v2", and was "v1"`},
		{"no ETag", ok, []string{length, "Content-Range: bytes 10-19/100"}, errAnswer, "no ETag"},
		{"two ETags", ok, []string{length, tag, `ETag: "v2"`, "Content-Range: bytes 10-19/100"},
			errAnswer, "2 headers ETag"},
		{"the whole object", "200 OK", []string{"Content-Length: 100", tag}, errAnswer, "whole object"},
		{"the whole of another object", "200 OK", []string{"Content-Length: 99", tag},
			source.ErrChanged, "has 99 bytes"},
		{"no content", "204 No Content", []string{tag}, nil, "204"},
		{"a redirect", "302 Found", []string{"Location: https://x/?secret"}, nil, "302"},
		{"not there", "404 Not Found", []string{"Content-Length: 0"}, source.ErrChanged, "404"},
	} {
		o := &object{size: 100, etag: `"v1"`}
		err := compare(answerOf(t, c.status, c.headers...), o, 10, 10)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: refused: %v", c.name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.says)
		case c.want != nil && !errors.Is(err, c.want):
			t.Errorf("%s: error %v is not %v", c.name, err, c.want)
		}
		noSecrets(t, err)
	}
}

func TestAWholeObjectAnswersARequestForAllOfIt(t *testing.T) {
	o := &object{size: 100}
	if err := compare(answerOf(t, "200 OK", "Content-Length: 100"), o, 0, 100); err != nil {
		t.Error(err)
	}
	err := compare(answerOf(t, "200 OK", "Content-Length: 100"), o, 0, 99)
	if !errors.Is(err, errAnswer) {
		t.Error(err)
	}
}

// A body without an announced length is shown only after its end has proved it right.
func TestABodyOfUnknownLengthIsCheckedFirst(t *testing.T) {
	for _, c := range []struct {
		name string
		sent int // bytes; the object has 1000
		ok   bool
	}{{"right", 1000, true}, {"too short", 999, false}, {"too long", 1001, false}} {
		t.Run(c.name, func(t *testing.T) {
			var s *served
			o := Options{Tries: 2, Patience: 2 * time.Second}
			s = serve(t, 1000, o, func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Range", "bytes 0-999/1000")
				w.WriteHeader(http.StatusPartialContent)
				w.(http.Flusher).Flush()
				_, _ = w.Write(append(s.data[:1000:1000], 7)[:c.sent])
				return true
			})
			tab := newTable(s.fetcher, s.object)
			p := make([]byte, 1000)
			_, err := tab.read(t.Context(), p, 0)
			if (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			if !c.ok && fmt.Sprint(p) != fmt.Sprint(make([]byte, 1000)) {
				t.Error("bytes were shown")
			}
		})
	}
}
