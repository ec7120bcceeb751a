package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
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

// begins says that a part of the body came, and not all of it.
func (s seen) begins() bool { return len(s.body) < len(want) && bytes.HasPrefix(want, s.body) }

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
		return s.partial() && s.begins() && errors.Is(s.err, io.ErrUnexpectedEOF)
	},
	HangBody: func(s seen) bool {
		return s.partial() && s.begins() && errors.Is(s.err, context.DeadlineExceeded)
	},
	Short: func(s seen) bool {
		return s.partial() && s.begins() && s.err == nil
	},
	Long: func(s seen) bool { return s.partial() && s.err == nil && bytes.Equal(s.body, want) },
	LongLength: func(s seen) bool {
		return s.partial() && s.err == nil && len(s.body) == 2000 && bytes.HasPrefix(s.body, want)
	},
	WrongBegin: func(s seen) bool {
		r := s.header.Get("Content-Range")
		return s.status == 206 && s.otherBytes() && !strings.HasPrefix(r, "bytes 5000-") &&
			strings.HasSuffix(r, "/1048576")
	},
	WrongTotal: func(s seen) bool {
		r := s.header.Get("Content-Range")
		return s.status == 206 && s.otherBytes() && !strings.HasSuffix(r, "/1048576") &&
			strings.HasPrefix(r, "bytes 5000-5999/")
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
	Slow:         func(s seen) bool { return s.partial() && s.err == nil && bytes.Equal(s.body, want) },
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
	if len(All) != len(faults)-2 { // WithoutETags, Slow
		t.Errorf("%d kinds, %d of them in All", len(faults), len(All))
	}
}

// sequence gives the faults of requests for three objects, each asked for ten times.
func sequence(t *testing.T, plan Plan, order []string) map[string][]Kind {
	t.Helper()
	d, got := decisions{asked: map[string]int{}, inARow: map[string]int{}}, map[string][]Kind{}
	for _, path := range order {
		k, _ := d.decide(&plan, httptest.NewRequest("GET", path, nil))
		got[path] = append(got[path], k)
	}
	return got
}

func TestFaultsDependOnTheSeedAndNotOnTheOrderOfRequests(t *testing.T) {
	a, b := strings.Split(strings.Repeat("/a /b /c ", 10), " "), strings.Repeat("/a ", 10)
	a = a[:30]
	other := strings.Fields(strings.Repeat("/c ", 10) + b + strings.Repeat("/b ", 10))
	plan := Plan{Seed: 5, Rate: 0.5}
	first := sequence(t, plan, a)
	if !maps.EqualFunc(first, sequence(t, plan, other), slices.Equal) {
		t.Error("another order, other faults")
	}
	plan.Seed = 6
	if maps.EqualFunc(first, sequence(t, plan, a), slices.Equal) {
		t.Error("another seed, the same faults")
	}
}

func TestFaultsInARowEnd(t *testing.T) {
	got := sequence(t, Plan{Rate: 1, InARow: 2}, strings.Fields(strings.Repeat("/a ", 9)))["/a"]
	for i, k := range got {
		if (k == None) != (i%3 == 2) {
			t.Fatalf("%q", got)
		}
	}
}

func TestFaultsInARowOfAContinuedBodyEnd(t *testing.T) {
	d := decisions{asked: map[string]int{}, inARow: map[string]int{}}
	for i := range 9 {
		r := httptest.NewRequest("GET", "/a", nil)
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-99", i))
		if k, _ := d.decide(&Plan{Rate: 1, InARow: 2}, r); (k == None) != (i%3 == 2) {
			t.Errorf("request %d: %q", i, k)
		}
	}
}

func TestStormsHitManyRequestsAlike(t *testing.T) {
	plan := Plan{Rate: 0.2, Kinds: []Kind{SlowDown}, Storm: 5}
	got := sequence(t, plan, strings.Fields(strings.Repeat("/a ", 200)))["/a"]
	for i := 0; i < len(got)-5; i++ {
		if (i == 0 || got[i-1] == None) && got[i] != None && slices.Contains(got[i:i+5], None) {
			t.Fatalf("a storm of fewer than 5 from %d: %q", i, got)
		}
	}
	if !slices.Contains(got, SlowDown) || !slices.Contains(got, None) {
		t.Errorf("%q", got)
	}
}

func TestScriptsAndMatchesChooseRequests(t *testing.T) {
	get := func(r *http.Request) bool { return r.URL.Path != "/b" }
	got := sequence(t, Plan{Script: Once(Cut, Gzip), Match: get}, strings.Fields("/b /a /b /a /a"))
	if !slices.Equal(got["/a"], []Kind{Cut, Gzip, None}) ||
		!slices.Equal(got["/b"], []Kind{None, None}) {
		t.Errorf("%q", got)
	}
}

func TestTheProxyKeepsHostAndHeaderAndRecordsThem(t *testing.T) {
	p := New(t, upstream(t), Plan{})
	r, err := http.NewRequest("GET", p.URL+"/a/b?x=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer secret")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(body, object) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if host := resp.Header.Get("X-Host"); "http://"+host != p.URL {
		t.Errorf("the server saw the host %s, not %s", host, p.URL)
	}
	list := p.Log.Requests()
	if len(list) != 1 || p.Log.Bytes() != int64(len(object)) {
		t.Fatalf("%+v", list)
	}
	if e := list[0]; !e.Authorized() || e.Path != "/a/b" || e.Query != "x=1" || e.Range() != "" ||
		e.Status != 200 {
		t.Errorf("%+v", e)
	}
	p.Log.Reset()
	if p.Log.Count(Request.Authorized) != 0 {
		t.Error("nothing was forgotten")
	}
}

func TestDelayAndRatesAreLowerBounds(t *testing.T) {
	up := upstream(t)
	for name, plan := range map[string]Plan{
		"delay":          {Delay: 100 * time.Millisecond},
		"per connection": {PerConnection: 8 << 20},
		"total":          {Total: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, begin := New(t, up, plan), time.Now()
			resp, err := http.Get(p.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took < 100*time.Millisecond { // of 125, with 20 of slack
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestPlansChangeWhileTheProxyRuns(t *testing.T) {
	p := New(t, upstream(t), Plan{Script: Always(Forbidden)})
	first := ask(t, p.URL)
	p.Set(Plan{})
	if second := ask(t, p.URL); first.status != 403 || second.status != 206 || p.Faults() != 1 {
		t.Errorf("%d, then %d; %v", first.status, second.status, p.Counts())
	}
}

func TestAHangEndsWithTheProxy(t *testing.T) {
	for _, k := range []Kind{Hang, HangBody} {
		var failed chan error
		t.Run(string(k), func(t *testing.T) {
			p := New(t, upstream(t), Plan{Script: Always(k)})
			failed = make(chan error)
			go func() {
				resp, err := http.Get(p.URL)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				failed <- err
			}()
			for p.Faults() == 0 {
				time.Sleep(time.Millisecond)
			}
		})
		if err := <-failed; err == nil {
			t.Errorf("%s: the client got everything", k)
		}
	}
}
