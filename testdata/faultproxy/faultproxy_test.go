package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// object is what the server behind the proxy serves.
var object = func() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

const tag = `"0123456789abcdef"`

func upstream(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		w.Header().Set("X-Host", r.Host)
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(object))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// seen is what a plain client makes of an answer.
type seen struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// ask asks for the 1000 bytes from 5000 on. It waits 300 milliseconds at most, of which a hang
// uses all.
func ask(t *testing.T, url string) seen {
	t.Helper()
	wait := 10 * time.Second
	if strings.Contains(t.Name(), "hang") {
		wait = 300 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=5000-5999")
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		return seen{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return seen{resp.StatusCode, resp.Header, body, err}
}

var want = object[5000:6000]

// partial says what an answer with the right header is; total and tag are checked apart.
func (s seen) partial() bool {
	return s.status == 206 && s.header.Get("Content-Range") == "bytes 5000-5999/1048576" &&
		s.header.Get("ETag") == tag
}

func (s seen) is(status int, text string) bool {
	return s.err == nil && s.status == status && strings.Contains(string(s.body), text)
}

func (s seen) otherBytes() bool {
	if s.err != nil || len(s.body) != len(want) {
		return false
	}
	for i := range want {
		if s.body[i] == want[i] {
			return false
		}
	}
	return true
}

// looks says what each kind must look like to a client.
var looks = map[Kind]func(seen) bool{
	None:        func(s seen) bool { return s.partial() && s.err == nil && bytes.Equal(s.body, want) },
	Throttled:   func(s seen) bool { return s.is(429, "") && s.header.Get("Retry-After") == "7" },
	Unavailable: func(s seen) bool { return s.is(503, "") && s.header.Get("Retry-After") == "7" },
	SlowDown:    func(s seen) bool { return s.is(503, "<Code>SlowDown</Code>") },
	Forbidden:   func(s seen) bool { return s.is(403, "") },
	Expired:     func(s seen) bool { return s.is(403, "Request has expired") },
	Hang:        func(s seen) bool { return s.status == 0 && errors.Is(s.err, context.DeadlineExceeded) },
	Garbage:     func(s seen) bool { return strings.Contains(s.err.Error(), "malformed HTTP") },
	Closed:      func(s seen) bool { return errors.Is(s.err, io.EOF) },
	Cut: func(s seen) bool {
		// A reset may overtake the bytes before it.
		return s.err != nil && strings.Contains(s.err.Error(), "connection reset")
	},
	Truncated: func(s seen) bool {
		return s.partial() && errors.Is(s.err, io.ErrUnexpectedEOF) && bytes.HasPrefix(want, s.body)
	},
	HangBody: func(s seen) bool {
		return s.partial() && errors.Is(s.err, context.DeadlineExceeded) && bytes.HasPrefix(want, s.body)
	},
	Short: func(s seen) bool {
		return s.partial() && s.err == nil && len(s.body) < len(want) && bytes.HasPrefix(want, s.body)
	},
	Long: func(s seen) bool { return s.partial() && s.err == nil && bytes.Equal(s.body, want) },
	LongLength: func(s seen) bool {
		return s.partial() && s.err == nil && len(s.body) == 2000 && bytes.HasPrefix(s.body, want)
	},
	WrongBegin: func(s seen) bool {
		return s.status == 206 && s.otherBytes() && strings.HasSuffix(s.header.Get("Content-Range"), "/1048576") &&
			!strings.HasPrefix(s.header.Get("Content-Range"), "bytes 5000-")
	},
	WrongTotal: func(s seen) bool {
		return s.status == 206 && s.otherBytes() && !strings.HasSuffix(s.header.Get("Content-Range"), "/1048576") &&
			strings.HasPrefix(s.header.Get("Content-Range"), "bytes 5000-5999/")
	},
	Whole: func(s seen) bool { return s.is(200, "") && bytes.Equal(s.body, object) },
	Gzip: func(s seen) bool {
		return s.partial() && s.err == nil && s.header.Get("Content-Encoding") == "gzip" &&
			!bytes.Equal(s.body, want)
	},
	Other: func(s seen) bool { return s.otherBytes() && s.header.Get("ETag") == `"1234567899bcdeff"` },
	OtherNoETag: func(s seen) bool {
		return s.otherBytes() && s.header.Get("ETag") == "" &&
			s.header.Get("Last-Modified") == "Sun, 09 Sep 2001 01:46:41 GMT"
	},
	WithoutETags: func(s seen) bool { return s.header.Get("ETag") == "" && bytes.Equal(s.body, want) },
}

func TestEachKindOfFaultIsWhatItSays(t *testing.T) {
	up := upstream(t)
	for k := range faults {
		if looks[k] == nil {
			t.Errorf("no test of %q", k)
		}
	}
	for k, right := range looks {
		t.Run("kind "+string(k), func(t *testing.T) {
			t.Parallel()
			p := New(t, up, Plan{Script: Always(k), RetryAfter: 7})
			if s := ask(t, p.URL); !right(s) {
				t.Errorf("%d %v, %d bytes, %v", s.status, s.header, len(s.body), s.err)
			}
			if n := p.Counts()[k]; n != 1 {
				t.Errorf("%v were counted", p.Counts())
			}
		})
	}
}

func TestKindsAreComplete(t *testing.T) {
	for _, k := range All {
		if _, ok := faults[k]; !ok {
			t.Errorf("%q is not made", k)
		}
	}
	if len(All) != len(faults)-1 { // WithoutETags
		t.Errorf("%d kinds, %d of them in All", len(faults), len(All))
	}
}
