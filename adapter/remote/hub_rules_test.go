package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

const (
	fakeCommit = "0123456789abcdef0123456789abcdef01234567"
	fakeOID    = "89abcdef0123456789abcdef0123456789abcdef"
	fakeSHA256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	fakeToken  = "tokenOfTheseRules42" // not in the form of the Hub
	fakeSign   = "X-Amz-Signature=c0ffee5ec2e7"
)

// fakeHub answers as a test tells it, for single rules. The data host is another origin.
type fakeHub struct {
	*httptest.Server
	data    *httptest.Server
	tree    string // the listing
	header  map[string]string
	get     http.HandlerFunc // a file of the endpoint; nil redirects to the data host
	serve   http.HandlerFunc // of the data host; nil sends content
	asked   atomic.Int64     // for files at the endpoint
	ranges  atomic.Int64     // at the data host
	content string
}

// oneShard is a listing with one large and one small file of 8 bytes.
const oneShard = `[{"type": "file", "path": "w.safetensors", "size": 8, "oid": "` + fakeOID +
	`", "lfs": {"oid": "` + fakeSHA256 + `", "size": 8, "pointerSize": 130}},` +
	`{"type": "file", "path": "config.json", "size": 8, "oid": "` + fakeOID + `"}]`

func startFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	f := &fakeHub{tree: oneShard, content: "contents", header: map[string]string{
		"X-Repo-Commit": fakeCommit, "X-Linked-Size": "8", "X-Linked-Etag": `"` + fakeSHA256 + `"`}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.endpoint))
	f.data = httptest.NewServer(http.HandlerFunc(f.storage))
	t.Cleanup(f.Close)
	t.Cleanup(f.data.Close)
	clearHub(t)
	t.Setenv("HF_ENDPOINT", f.URL)
	t.Setenv("HF_TOKEN", fakeToken)
	return f
}

func (f *fakeHub) endpoint(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "/revision/"):
		fmt.Fprintf(w, `{"id": "org/model", "sha": %q, "private": true, "gated": false}`, fakeCommit)
	case strings.Contains(r.URL.Path, "/tree/"):
		_, _ = io.WriteString(w, f.tree)
	default:
		f.asked.Add(1)
		for name, value := range f.header {
			w.Header().Set(name, value)
		}
		if f.get != nil {
			f.get(w, r)
			return
		}
		w.Header().Set("Location", f.data.URL+"/blob?"+fakeSign)
		w.WriteHeader(http.StatusFound)
	}
}

func (f *fakeHub) storage(w http.ResponseWriter, r *http.Request) {
	f.ranges.Add(1)
	if f.serve != nil {
		f.serve(w, r)
		return
	}
	w.Header().Set("ETag", `"first"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
}

// open opens the repository, and returns one of its files.
func (f *fakeHub) open(t *testing.T, name string) (*hub, *object) {
	t.Helper()
	b, o := backendOf(t, openStore(t, "hf://org/model"), name)
	return b.(*hub), o
}

// getAll reads a range, and closes the answer.
func getAll(ctx context.Context, h *hub, o *object, off, n int64) (string, error) {
	a, err := h.get(ctx, o, off, n)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	if err := compare(a, o, off, n); err != nil {
		return "", err
	}
	text, err := io.ReadAll(a.Body)
	return string(text), err
}

func entryOf(path string, change map[string]any) string {
	e := map[string]any{"type": "file", "path": path, "size": 8, "oid": fakeOID}
	maps.Copy(e, change)
	text, _ := json.Marshal(e)
	return string(text)
}

func TestListingsThatCannotBeTrustedAreRefused(t *testing.T) {
	lfs := func(oid string, size int64) map[string]any {
		return map[string]any{"lfs": map[string]any{"oid": oid, "size": size}}
	}
	for _, c := range []struct{ name, tree, want string }{
		{"above", entryOf("../x", nil), `"../x" is not the path of a file`},
		{"above, inside", entryOf("a/../../x", nil), "not the path"},
		{"absolute", entryOf("/etc/passwd", nil), "not the path"},
		{"empty", entryOf("", nil), "not the path"},
		{"dot", entryOf(".", nil), "not the path"},
		{"empty part", entryOf("a//b", nil), "not the path"},
		{"slash at the end", entryOf("a/", nil), "not the path"},
		{"line break", entryOf("a\nb", nil), "not the path"},
		{"escape", entryOf("a\x1b[2Jb", nil), "not the path"},
		{"zero", entryOf("a\x00b", nil), "not the path"},
		{"long", entryOf(strings.Repeat("a", 256), nil), "not the path"},
		{"deep", entryOf(strings.Repeat("a/", 3000)+"a", nil), "not the path"},
		{"huge", entryOf("a", map[string]any{"size": int64(1) << 60}), "1152921504606846976 bytes"},
		{"beyond 64 bits", `{"type": "file", "path": "a", "size": 1e30, "oid": "` + fakeOID + `"}`, "not what the Hub sends"},
		{"negative", entryOf("a", map[string]any{"size": -1}), "has -1 bytes"},
		{"another size", entryOf("a", lfs(fakeSHA256, 9)), "8 bytes, and 9 in Git LFS"},
		{"no version", entryOf("a", map[string]any{"oid": ""}), "no version"},
		{"a version that is a path", entryOf("a", map[string]any{"oid": "../" + fakeOID}), "no version"},
		{"no hash", entryOf("a", lfs("", 8)), "no SHA-256"},
		{"twice", entryOf("a", nil) + "," + entryOf("a", nil), "listed twice"},
		{"a file and a folder", entryOf("a", nil) + "," + entryOf("a/b", nil), "a file and a folder"},
		{"a folder and a file", entryOf("a/b", nil) + "," + entryOf("a", nil), "listed twice"},
		{"no list", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFakeHub(t)
			f.tree = "[" + c.tree + "]"
			_, _, err := Open(t.Context(), "hf://org/model", Options{})
			if c.want == "" && err == nil {
				return
			}
			if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestListingsThatDoNotEndAreRefused(t *testing.T) {
	var many strings.Builder // 1000 files in a folder
	for i := range 1000 {
		fmt.Fprintf(&many, ",%s", entryOf(fmt.Sprintf("x/%d", i), nil))
	}
	list := "[" + many.String()[1:] + "]"
	for _, c := range []struct {
		name  string
		reply func(f *fakeHub, page int, w http.ResponseWriter, r *http.Request)
		want  string
		most  int64 // requests
	}{
		{"the same page again", func(f *fakeHub, _ int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+r.URL.RequestURI()+`>; rel="next"`)
			fmt.Fprint(w, "[]")
		}, "does not end", 2},
		{"always another page", func(f *fakeHub, page int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`<%s/tree/%d>; rel="next"`, f.URL, page))
			fmt.Fprint(w, "[]")
		}, "does not end", mostPages},
		{"too many files", func(f *fakeHub, page int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`</tree/%d>; rel="next"`, page))
			fmt.Fprint(w, strings.ReplaceAll(list, `"x/`, fmt.Sprintf(`"%d/`, page)))
		}, "more than 200000 files and folders", mostObjects/1000 + 1},
		{"another origin", func(f *fakeHub, _ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "<"+f.data.URL+`/tree/2>; rel="next"`)
			fmt.Fprint(w, "[]")
		}, "refers to another host", 1},
		{"a redirect away", func(f *fakeHub, _ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, f.data.URL+"/tree/2", http.StatusFound)
		}, "set HF_ENDPOINT to the host that answers", 1},
		{"redirects without end", func(f *fakeHub, _ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusTemporaryRedirect)
		}, "redirects more than", mostRedirects},
		{"too many bytes", func(f *fakeHub, _ int, w http.ResponseWriter, _ *http.Request) {
			space := []byte(strings.Repeat(" ", 1<<20))
			for range mostListing>>20 + 1 {
				_, _ = w.Write(space)
			}
		}, "has more than 67108864 bytes", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFakeHub(t)
			pages := atomic.Int64{}
			plain := f.Config.Handler
			f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/tree/") {
					c.reply(f, int(pages.Add(1)), w, r)
					return
				}
				plain.ServeHTTP(w, r)
			})
			_, _, err := Open(t.Context(), "hf://org/model", Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if n := pages.Load(); n > c.most {
				t.Errorf("%d requests, want at most %d", n, c.most)
			}
			if n := f.ranges.Load(); n != 0 {
				t.Errorf("%d requests went to another origin", n)
			}
		})
	}
}

func TestAnswersAboutAnotherFileAreAChange(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		changed             bool
	}{
		{"another commit", "X-Repo-Commit", strings.Repeat("1", 40), true},
		{"another content", "X-Linked-Etag", `"` + strings.Repeat("1", 64) + `"`, true},
		{"another size", "X-Linked-Size", "9", true},
		{"no commit", "X-Repo-Commit", "", false},
		{"no content", "X-Linked-Etag", "", false},
		{"no size", "X-Linked-Size", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFakeHub(t)
			f.header[c.header] = c.value
			h, o := f.open(t, "w.safetensors")
			_, err := getAll(t.Context(), h, o, 0, 8)
			if err == nil || !strings.Contains(err.Error(), c.header) {
				t.Errorf("%v", err)
			}
			if errors.Is(err, source.ErrChanged) != c.changed {
				t.Errorf("changed is %v: %v", !c.changed, err)
			}
			if n := f.ranges.Load(); n != 0 {
				t.Errorf("%d ranges were asked for", n)
			}
		})
	}
	t.Run("a small file of another content", func(t *testing.T) {
		f := startFakeHub(t)
		f.get = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Linked-Etag", strings.Repeat("1", 40))
			_, _ = io.WriteString(w, f.content)
		}
		h, o := f.open(t, "config.json")
		if _, err := getAll(t.Context(), h, o, 0, 8); !errors.Is(err, source.ErrChanged) {
			t.Errorf("%v", err)
		}
	})
}

func TestTheETagOfTheDataHostIsPinned(t *testing.T) {
	f := startFakeHub(t)
	h, o := f.open(t, "w.safetensors")
	etag := ""
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
	}
	for _, c := range []struct {
		etag string
		want error
	}{
		{`"first"`, nil}, {`"second"`, source.ErrChanged}, {"", errAnswer}, {`"first"`, nil},
		{"", nil}, {`"first"`, errAnswer}, {"", nil}, // of a file whose first answer had none
	} {
		if etag == `"first"` && c.etag == "" && c.want == nil {
			h, o = f.open(t, "w.safetensors")
		}
		etag = c.etag
		got, err := getAll(t.Context(), h, o, 2, 3)
		if !errors.Is(err, c.want) || c.want == nil && got != "nte" {
			t.Errorf("%s: %q, %v, want %v", c.etag, got, err, c.want)
		}
	}
}

func TestReadersAskForAnAddressOnce(t *testing.T) {
	f := startFakeHub(t)
	h, o := f.open(t, "w.safetensors")
	release := make(chan struct{})
	f.get = func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Location", f.data.URL+"/blob?"+fakeSign)
		w.WriteHeader(http.StatusFound)
	}
	const readers = 16
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			off := int64(i % 8)
			if got, err := getAll(t.Context(), h, o, off, 1); got != f.content[off:off+1] {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	until(t, func() bool { return f.asked.Load() > 0 })
	close(release)
	all.Wait()
	if n := f.asked.Load(); n != 1 {
		t.Errorf("%d addresses, want one", n)
	}
}

// All readers have an address when it stops to be good. One of them asks for another.
func TestReadersRenewAnAddressOnce(t *testing.T) {
	f := startFakeHub(t)
	h, o := f.open(t, "w.safetensors")
	f.get = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", fmt.Sprintf("%s/blob?number=%d", f.data.URL, f.asked.Load()))
		w.WriteHeader(http.StatusFound)
	}
	const readers = 16
	var late sync.WaitGroup
	late.Add(readers)
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("number") == "1" {
			late.Done()
			late.Wait() // so that all of them are refused
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
	}
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			off := int64(i % 8)
			if got, err := getAll(t.Context(), h, o, off, 1); got != f.content[off:off+1] {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	if n := f.asked.Load(); n != 2 {
		t.Errorf("%d addresses, want two", n)
	}
}

// until waits for a condition.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for range 3000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it never came")
}

// The reader who asks for the address leaves. The one who waits for it asks again.
func TestAReaderThatLeavesHoldsUpNoOther(t *testing.T) {
	f := startFakeHub(t)
	h, o := f.open(t, "w.safetensors")
	first := make(chan struct{})
	f.get = func(w http.ResponseWriter, r *http.Request) {
		if f.asked.Load() == 1 {
			close(first)
			<-r.Context().Done()
			return
		}
		w.Header().Set("Location", f.data.URL+"/blob?"+fakeSign)
		w.WriteHeader(http.StatusFound)
	}
	ctx, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := getAll(ctx, h, o, 0, 1)
		left <- err
	}()
	<-first
	go func() {
		got, err := getAll(t.Context(), h, o, 0, 8)
		if err == nil && got != f.content {
			err = fmt.Errorf("got %q", got)
		}
		stayed <- err
	}()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader that left: %v", err)
	}
	if err := <-stayed; err != nil {
		t.Errorf("the reader that stayed: %v", err)
	}
}

func TestALimitedRateIsRespected(t *testing.T) {
	for _, c := range []struct{ name, header, value string }{
		{"as the Hub says it", "RateLimit", `"resolvers";r=0;t=200`},
		{"as others say it", "Retry-After", "200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFakeHub(t)
			h, o := f.open(t, "w.safetensors")
			f.get = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(c.header, c.value)
				w.WriteHeader(http.StatusTooManyRequests)
			}
			for range 3 {
				_, err := getAll(t.Context(), h, o, 0, 8)
				var d *delay
				if !errors.As(err, &d) || !d.busy {
					t.Fatalf("%#v", err)
				}
				if d.after < 100*time.Second || d.after > 200*time.Second {
					t.Errorf("after %v", d.after)
				}
				if !strings.Contains(err.Error(), "limits the rate of requests: try again in ") {
					t.Errorf("%v", err)
				}
			}
			if n := f.asked.Load(); n != 1 {
				t.Errorf("%d requests, want one", n)
			}
		})
	}
}

// A small file is answered by the Hub itself: with the range, or with the whole file, or by a
// redirect to another path that alone has the headers.
func TestSmallFilesAreReadFromTheEndpoint(t *testing.T) {
	for _, c := range []struct {
		name string
		get  func(f *fakeHub) http.HandlerFunc
	}{
		{"ranges", func(f *fakeHub) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
			}
		}},
		{"whole", func(f *fakeHub) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, f.content)
			}
		}},
		{"redirect", func(f *fakeHub) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer "+fakeToken {
					w.WriteHeader(http.StatusUnauthorized)
				}
				if strings.Contains(r.URL.Path, "/resolve/") {
					http.Redirect(w, r, "/cached/config.json", http.StatusTemporaryRedirect)
					return
				}
				for name := range f.header {
					w.Header().Del(name)
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFakeHub(t)
			f.header["X-Linked-Etag"] = `W/"` + fakeOID + `"`
			f.get = c.get(f)
			h, o := f.open(t, "config.json")
			for off := range int64(8) {
				for n := int64(1); off+n <= 8; n++ {
					got, err := getAll(t.Context(), h, o, off, n)
					if got != f.content[off:off+n] || err != nil {
						t.Fatalf("[%d, %d): %q, %v", off, off+n, got, err)
					}
				}
			}
			if n := f.ranges.Load(); n != 0 {
				t.Errorf("%d requests went to the data host", n)
			}
		})
	}
}

// secretsOf returns which of the secrets an error shows.
func secretsOf(err error) (list []string) {
	text := fmt.Sprintf("%v %#v", err, err)
	for _, s := range []string{fakeToken, fakeSign, "c0ffee5ec2e7"} {
		if err != nil && strings.Contains(text, s) {
			list = append(list, s)
		}
	}
	return list
}

// askAPI asks the API for a repository.
func askAPI(t *testing.T) error {
	t.Helper()
	h, err := newHub(repository{id: "org/model"}, newClient(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.repo(t.Context())
	return err
}

func TestErrorsOfTheHubHaveNoSecrets(t *testing.T) {
	leak := fakeToken + " http://host/blob?" + fakeSign
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Error-Message", leak)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(code)
			fmt.Fprintf(w, "<Error><Code>No</Code><Message>%s</Message>"+
				"<StringToSign>%s</StringToSign></Error>", leak, leak)
		}
	}
	hangUp := func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_ = c.Close()
	}
	location := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	}
	handlers := map[string]http.HandlerFunc{"hang up": hangUp}
	for _, code := range []int{
		300, 400, 401, 403, 404, 409, 410, 412, 416, 418, 429, 451, 500, 502, 503,
	} {
		handlers[fmt.Sprint(code)] = status(code)
	}
	for _, to := range []string{"", "http://[bad?" + fakeSign, "ftp://host/?" + fakeSign, "http://u:p@host/?" + fakeSign,
		"http://127.0.0.1:1/blob?" + fakeSign, "/loop?" + fakeSign, "http://no such host/?" + fakeSign} {
		handlers["location "+to] = location(to)
	}
	for _, at := range []string{"endpoint", "data host", "listing"} {
		for name, handler := range handlers {
			t.Run(at+"/"+name, func(t *testing.T) {
				f := startFakeHub(t)
				var err error
				if at == "listing" {
					f.Config.Handler = handler
					err = askAPI(t)
				} else {
					h, o := f.open(t, "w.safetensors")
					if at == "endpoint" {
						f.get = handler
					} else {
						f.serve = handler
					}
					_, err = getAll(t.Context(), h, o, 0, 8)
				}
				if err == nil || len(secretsOf(err)) > 0 {
					t.Errorf("%v: %v", secretsOf(err), err)
				}
			})
		}
	}
}

// A public Hub that is attacked must not make this machine ask its own network.
func TestThePublicHubLeadsToPublicHostsOnly(t *testing.T) {
	clearHub(t)
	n := newNetwork()
	to := ""
	n.serve(t, "https", "huggingface.co", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Repo-Commit", fakeCommit)
		w.Header().Set("X-Linked-Size", "8")
		w.Header().Set("X-Linked-Etag", `"`+fakeSHA256+`"`)
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}, "203.0.113.7")
	answer := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("contents"))
	}
	n.serve(t, "https", "public.example", answer, "203.0.113.8")
	n.serve(t, "https", "inside.example", answer, "10.0.0.8")
	n.serve(t, "http", "plain.example", answer, "203.0.113.9")
	for _, c := range []struct {
		to    string
		reads bool
	}{
		{"https://public.example/blob", true},
		{"https://inside.example/blob", false},
		{"https://10.0.0.8/blob", false},
		{"http://plain.example/blob", false},
	} {
		h, err := newHub(repository{id: "org/model"}, n.client(t))
		if err != nil {
			t.Fatal(err)
		}
		h.commit, to = fakeCommit, c.to
		o := &object{name: "w.safetensors", size: 8, version: fakeSHA256, sha256: fakeSHA256}
		if got, err := getAll(t.Context(), h, o, 0, 8); (got == "contents") != c.reads {
			t.Errorf("%s: %q, %v", c.to, got, err)
		}
	}
}
