package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// model is the files of a small checkpoint. The bytes of the shards are not read here.
var model = map[string]string{
	"config.json": `{"auto_map": {"AutoModel": "modeling_x.X",
		"AutoTokenizer": ["tokenization_x.T", null], "AutoConfig": "org/other--configuration_y.Y"}}`,
	"model.safetensors.index.json": `{"weight_map": {"a": "model-1.safetensors",
		"b": "model-2.safetensors", "c": "../evil", "d": "sub/x.safetensors"}}`,
	"model-1.safetensors": strings.Repeat("0123456789", 1000),
	"model-2.safetensors": strings.Repeat("abcdefghij", 1000),
	"modeling_x.py":       "class X: pass",
	"tokenization_x.py":   "class T: pass",
	"tokenizer.json":      "{}",
	"a b%+é.txt":          "odd",
	"empty.txt":           "",
	"one.txt":             "1",
	"sub/inner.json":      "[1, 2]",
	".hidden":             "hidden",
}

// webFolder writes files into a new folder.
func webFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// without sets an environment in which no passwords are found.
func without(t *testing.T) {
	t.Helper()
	t.Setenv("NETRC", "")
	t.Setenv("HOME", t.TempDir())
}

func openWeb(t *testing.T, address string) (source.Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o := Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s, _, err := Open(t.Context(), address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, &log
}

// content reads a file of a store in pieces.
func webContent(t *testing.T, s source.Store, name string) string {
	t.Helper()
	f, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer f.Close()
	var all []byte
	for off := int64(0); off < f.Size(); off += 777 {
		p := make([]byte, min(777, f.Size()-off))
		if _, err := f.ReadAt(t.Context(), p, off); err != nil {
			t.Fatalf("%s at %d: %v", name, off, err)
		}
		all = append(all, p...)
	}
	return string(all)
}

func TestAWebFolderIsRead(t *testing.T) {
	without(t)
	dir := webFolder(t, model)
	for kind, o := range map[string]stores.FileOptions{
		"with ETags": {}, "without ETags": {NoETag: true},
	} {
		t.Run(kind, func(t *testing.T) {
			s, _ := openWeb(t, stores.Files(t, dir, o).URL+"/")
			want := []string{"a b%+é.txt", "config.json", "empty.txt", "model-1.safetensors",
				"model-2.safetensors", "model.safetensors.index.json", "modeling_x.py", "one.txt",
				"sub/", "tokenization_x.py", "tokenizer.json"}
			if got := namesIn(t, s, "."); !slices.Equal(got, want) {
				t.Errorf("the folder has %q", got)
			}
			if got := namesIn(t, s, "sub"); !slices.Equal(got, []string{"inner.json"}) {
				t.Errorf("the subfolder has %q", got)
			}
			for name, want := range model {
				if name[0] != '.' && webContent(t, s, name) != want {
					t.Errorf("%s has other bytes", name)
				}
			}
		})
	}
}

func TestFilesAreLookedForByName(t *testing.T) {
	without(t)
	dir := webFolder(t, model)
	server := stores.Files(t, dir, stores.FileOptions{NoListing: true})
	s, log := openWeb(t, server.URL+"/")
	want := []string{"config.json", "model-1.safetensors", "model-2.safetensors",
		"model.safetensors.index.json", "modeling_x.py", "tokenization_x.py", "tokenizer.json"}
	if got := namesIn(t, s, "."); !slices.Equal(got, want) {
		t.Errorf("there are %q", got)
	}
	for _, name := range want {
		if webContent(t, s, name) != model[name] {
			t.Errorf("%s has other bytes", name)
		}
	}
	if !strings.Contains(log.String(), "lists no files") {
		t.Errorf("the log is %q", log)
	}
	// A file by itself may have any name.
	server.Write(t, "odd.safetensors", []byte("odd bytes"))
	s, _ = openWeb(t, server.URL+"/odd.safetensors")
	if got := webContent(t, s, "odd.safetensors"); got != "odd bytes" {
		t.Errorf("the file has %q", got)
	}
}

func TestTLSOfAnAuthorityThatIsTrusted(t *testing.T) {
	without(t)
	authority := stores.NewAuthority(t)
	server := stores.Files(t, webFolder(t, model), stores.FileOptions{Authority: authority})
	c := newClient(Options{})
	defer c.close()
	_, rest, _ := strings.Cut(server.URL, "://")
	h, err := openHTTPS(t.Context(), address{scheme: "https", rest: rest}, c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.list(t.Context(), ".", 100)
	if err == nil || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Errorf("without the authority: %v", err)
	}
	c.certs = newNetwork().client(t).certs
	c.certs.RootCAs, c.certs.ServerName = authority.Pool, ""
	c.connect(newDialer())
	if l, err := h.list(t.Context(), ".", 100); err != nil || len(l) == 0 {
		t.Errorf("with the authority: %v", err)
	}
}

// A file that changes is never read as a mixture, whatever the server tells.
func TestAChangedFileIsNoticed(t *testing.T) {
	without(t)
	for kind, o := range map[string]stores.FileOptions{
		"with ETags": {}, "without ETags": {NoETag: true},
	} {
		for change, to := range map[string]string{
			"other bytes": strings.Repeat("9876543210", 1000), "shorter": "short", "empty": "",
			"longer": strings.Repeat("x", 20000),
		} {
			dir := webFolder(t, model)
			server := stores.Files(t, dir, o)
			s, _ := openWeb(t, server.URL+"/")
			f, err := s.Open(t.Context(), "model-1.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			if (f.Unseen() != "") != o.NoETag {
				t.Errorf("%s: unseen changes are %q", kind, f.Unseen())
			}
			server.Write(t, "model-1.safetensors", []byte(to))
			name := filepath.Join(dir, "model-1.safetensors")
			later := time.Now().Add(time.Minute)
			if err := os.Chtimes(name, later, later); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 10)
			if _, err = f.ReadAt(t.Context(), p, 100); !errors.Is(err, source.ErrChanged) {
				t.Errorf("%s, %s: %v", kind, change, err)
			}
			server.Remove(t, "model-1.safetensors")
			if _, err = f.ReadAt(t.Context(), p, 100); !errors.Is(err, source.ErrChanged) {
				t.Errorf("%s, removed: %v", kind, err)
			}
		}
	}
}

// shape is a server that is odd in one way.
type shape func(w http.ResponseWriter, r *http.Request, next http.Handler)

// ranges serves the files of the model with an ETag.
func ranges(w http.ResponseWriter, r *http.Request) {
	content, ok := model[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if w.Header().Get("Etag") == "" {
		w.Header().Set("Etag", fmt.Sprintf(`"%x"`, len(content)))
	}
	http.ServeContent(w, r, path.Base(r.URL.Path), time.Time{}, strings.NewReader(content))
}

// oddServer starts a server and opens it.
func oddServer(t *testing.T, odd shape) (*https, *httptest.Server) {
	t.Helper()
	without(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		odd(w, r, http.HandlerFunc(ranges))
	}))
	t.Cleanup(s.Close)
	c := newClient(Options{})
	t.Cleanup(c.close)
	_, rest, _ := strings.Cut(s.URL, "://")
	b, err := openHTTPS(t.Context(), address{scheme: "http", rest: rest}, c)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*https), s
}

// known is what a server without listing shows of the model.
var knownFiles = []string{"config.json", "model-1.safetensors", "model-2.safetensors",
	"model.safetensors.index.json", "modeling_x.py", "tokenization_x.py", "tokenizer.json"}

func TestOddServersAreRead(t *testing.T) {
	var turns atomic.Int64
	for kind, odd := range map[string]shape{
		"403 for missing files": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if _, ok := model[r.URL.Path[1:]]; !ok {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		},
		"a page for every name": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if _, ok := model[r.URL.Path[1:]]; !ok {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, `<!doctype html><script src="/app.js"></script><a href="about">x</a>`)
				return
			}
			next.ServeHTTP(w, r)
		},
		"no conditions": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("If-Match")
			next.ServeHTTP(w, r)
		},
		"no HEAD": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodGet {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			next.ServeHTTP(w, r)
		},
		"busy now and then": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if turns.Add(1)%20 == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		},
		"another path": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if p, ok := strings.CutPrefix(r.URL.Path, "/there"); ok {
				r.URL.Path = p
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Location", "/there"+r.URL.Path+"?sig=1")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			h, _ := oddServer(t, odd)
			l, err := h.list(t.Context(), ".", 1000)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range l {
				got = append(got, l[i].name)
				data, err := h.readAll(t.Context(), &l[i])
				if err != nil || string(data) != model[l[i].name] {
					t.Errorf("%s: %q (%v)", l[i].name, data, err)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, knownFiles) {
				t.Errorf("there are %q", got)
			}
		})
	}
}

func TestServersThatAreRefused(t *testing.T) {
	page := func(links string) shape {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path == "/" {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				fmt.Fprint(w, links)
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	for kind, c := range map[string]struct {
		odd  shape
		want string
	}{
		"no ranges": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		}, "sends whole files only (it answers 200 to a request for a range): download it (wget"},
		"nothing there": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.NotFound(w, r)
		}, "name the folder that has config.json"},
		"forbidden": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
		}, `if you have a password, put "machine 127.0.0.1 login USER password PASSWORD" into `},
		"unauthorized": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusUnauthorized)
		}, `if you have a password, put "machine 127.0.0.1`},
		"redirect to ftp": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Location", "ftp://host/x")
			w.WriteHeader(http.StatusFound)
		}, "ftp:// is neither http nor https"},
		"endless page": {page(strings.Repeat(" ", mostIndex+1)), "more than a page of 8388608 bytes"},
		"endless folder": {page(func() string {
			var b strings.Builder
			for i := range mostFiles + 1 {
				fmt.Fprintf(&b, `<a href="x%d">`, i)
			}
			return b.String() + `<a href="config.json">`
		}()), "more than 1000 files"},
		"too many shards": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path != "/model.safetensors.index.json" {
				next.ServeHTTP(w, r)
				return
			}
			var b strings.Builder
			fmt.Fprint(&b, `{"weight_map": {`)
			for i := range mostFiles + 1 {
				fmt.Fprintf(&b, `"%d": "%d.safetensors", `, i, i)
			}
			fmt.Fprint(&b, `"x": "y.safetensors"}}`)
			w.Header().Set("Etag", `"x"`)
			http.ServeContent(w, r, "x.json", time.Time{}, strings.NewReader(b.String()))
		}, "more than 5000 files are named"},
	} {
		t.Run(kind, func(t *testing.T) {
			h, _ := oddServer(t, c.odd)
			_, err := h.list(t.Context(), ".", 1000)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %v", err)
			}
		})
	}
}

// One file cannot be read, and the others can.
func TestFilesThatAreRefused(t *testing.T) {
	for kind, c := range map[string]struct {
		odd  func(w http.ResponseWriter, r *http.Request)
		want string
	}{
		"no version": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("123"))
		}, "neither a strong ETag nor Last-Modified"},
		"weak version": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `W/"1"`)
			http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("123"))
		}, "neither a strong ETag nor Last-Modified"},
		"ETag without quotes": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `abc`)
			http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("123"))
		}, "neither a strong ETag nor Last-Modified"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Content-Encoding", "gzip")
			http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("123"))
		}, `the server compresses it (Content-Encoding "gzip")`},
		"whole file": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "123") },
			"sends whole files only"},
		"unknown size": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-0/*")
			w.WriteHeader(http.StatusPartialContent)
		}, `Content-Range "bytes 0-0/*"`},
		"other range": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 1-1/3")
			w.WriteHeader(http.StatusPartialContent)
		}, `Content-Range "bytes 1-1/3" for the first byte`},
		"416 for a file with bytes": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes */3")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, `status 416`},
		"forbidden": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}, "may not be read"},
	} {
		t.Run(kind, func(t *testing.T) {
			h, _ := oddServer(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				switch r.URL.Path {
				case "/":
					w.Header().Set("Content-Type", "text/html")
					fmt.Fprint(w, `<a href="config.json"><a href="odd.bin"><a href="dead-link">`)
				case "/odd.bin":
					c.odd(w, r)
				default:
					next.ServeHTTP(w, r)
				}
			})
			l, err := h.list(t.Context(), ".", 1000)
			if err != nil || len(l) != 2 {
				t.Fatalf("the folder has %v (%v)", l, err)
			}
			if l[0].refused != nil {
				t.Errorf("config.json: %v", l[0].refused)
			}
			if e := l[1].refused; e == nil || !strings.Contains(e.Error(), c.want) {
				t.Errorf("odd.bin: %v", e)
			}
		})
	}
}

// Servers that tell versions apart by time are noticed when they say another time, or none.
func TestWeakVersionsAreCompared(t *testing.T) {
	const then = "Mon, 30 Nov 2026 20:00:00 GMT"
	var modified, etag atomic.Value
	h, _ := oddServer(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/config.json" {
			http.NotFound(w, r)
			return
		}
		r.Header.Del("If-Unmodified-Since") // as a server that does not know it
		w.Header().Set("Last-Modified", modified.Load().(string))
		w.Header().Set("Etag", etag.Load().(string))
		http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("0123456789"))
	})
	modified.Store(then)
	etag.Store(`W/"1"`)
	l, err := h.list(t.Context(), ".", 10)
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	if o := l[0]; o.version != "" || o.unseen == "" || o.modified.Format(http.TimeFormat) != then {
		t.Errorf("the version is %q, and %q is unseen", l[0].version, l[0].unseen)
	}
	for _, c := range []struct {
		modified, etag string
		changed        bool
	}{
		{then, `W/"1"`, false},
		{then, `"1"`, false}, // it has become strong
		{then, `"2"`, true},
		{then, "", true},
		{"", `W/"1"`, true},
		{"Mon, 30 Nov 2026 20:00:01 GMT", `W/"1"`, true},
	} {
		modified.Store(c.modified)
		etag.Store(c.etag)
		a, err := h.get(t.Context(), &l[0], 0, 5)
		if err == nil {
			a.Body.Close()
		}
		if errors.Is(err, source.ErrChanged) != c.changed || err != nil && !c.changed {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPasswordsGoToTheirServerOnly(t *testing.T) {
	const word = "correct-battery-word"
	var elsewhere []string
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		ranges(w, r)
	}))
	defer cdn.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case user != "me" || password != word:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, ".safetensors"):
			http.Redirect(w, r, cdn.URL+r.URL.Path, http.StatusFound)
		default:
			ranges(w, r)
		}
	}))
	defer s.Close()
	for password, right := range map[string]bool{word: true, "another-battery-word": false} {
		file := filepath.Join(t.TempDir(), "netrc")
		text := "machine 127.0.0.1 login me password " + password
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("NETRC", file)
		store, log := openWeb(t, s.URL)
		l, err := store.List(t.Context(), ".", 1000)
		const shard, fix = "model-1.safetensors", "correct the user or the password in "
		switch {
		case !right && (err == nil || !strings.Contains(err.Error(), fix+file)):
			t.Errorf("with a wrong password: %v", err)
		case right && err != nil:
			t.Error(err)
		case right && (webContent(t, store, shard) != model[shard] || l.Mode.Perm() != 0o511):
			t.Errorf("the folder has mode %v, or a file other bytes", l.Mode)
		}
		all := fmt.Sprint(log, err)
		if !strings.Contains(all, "in the clear") || strings.Contains(all, password) {
			t.Errorf("the log and the error are %s", all)
		}
	}
	if len(elsewhere) == 0 || strings.Join(elsewhere, "") != "" {
		t.Errorf("another server got %q", elsewhere)
	}
}

func TestAddressesOfWebFolders(t *testing.T) {
	without(t)
	for address, want := range map[string]string{
		"https://host.test":               "https://host.test/",
		"https://host.test/a/b":           "https://host.test/a/b/",
		"https://host.test:8443/a%20b/":   "https://host.test:8443/a%20b/",
		"http://[::1]:80/x/":              "http://[::1]:80/x/",
		"https://host.test/a@b/":          "https://host.test/a@b/",
		"https://host.test/f.safetensors": "https://host.test/",
	} {
		s, _, err := Open(t.Context(), address, Options{})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if s.Name() != want {
			t.Errorf("%s is opened as %s", address, s.Name())
		}
		_ = s.Close()
	}
	for address, want := range map[string]string{
		"https://":                              "is not the address of a folder: write https://HOST/FOLDER/",
		"https:///folder/":                      "is not the address of a folder",
		"https://ho st/":                        "is not the address of a folder",
		"https://host:port/":                    "is not the address of a folder",
		"https://127.0.0.1:99999/":              "is not the address of a folder",
		"https://me:SECRET@host/":               "has a user name, which every user",
		"https://SECRET@host/x.safetensors":     "has a user name",
		"https://host/x/?token=SECRET":          "has a query, which every user",
		"https://host/m.safetensors?sig=SECRET": "has a query",
		"https://me:SE/CRET@host/x/":            "it is not the address of a folder",
		"https://host/x/#SECRET":                "has a query",
	} {
		_, _, err := Open(t.Context(), address, Options{})
		text := fmt.Sprint(err)
		if !strings.Contains(text, want) || strings.Contains(text, "CRET") {
			t.Errorf("%s: %v", address, err)
		}
		if strings.Contains(want, "which") && !strings.Contains(text, "~/.netrc") {
			t.Errorf("%s: no way out: %v", address, err)
		}
	}
}

// Python's own server lists folders, but has no ranges.
func TestPythonsServerIsRefused(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	without(t)
	dir := webFolder(t, model)
	ctx, cancel := context.WithCancel(t.Context())
	server := exec.CommandContext(ctx, python, "-u", "-m", "http.server", "--bind", "127.0.0.1",
		"--directory", dir, "0")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // it was killed
	}()
	line := make([]byte, 200)
	n, err := io.ReadAtLeast(out, line, 30)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line[:n]), "(")
	u, err := url.Parse(strings.Split(rest, ")")[0])
	if err != nil {
		t.Fatal(err)
	}
	s, _ := openWeb(t, u.String())
	_, err = s.List(t.Context(), ".", 1000)
	if err == nil || !strings.Contains(err.Error(), "sends whole files only") {
		t.Errorf("the error is %v", err)
	}
}

// An answer that is wrong for once does not make a listed file look as if it were missing.
func TestAPassingFaultHidesNoFile(t *testing.T) {
	log.SetOutput(io.Discard) // net/http reports bytes without a request
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	for _, kind := range faultproxy.All {
		if changes[kind] || kind == faultproxy.OtherNoETag || kind == faultproxy.Short {
			continue // the first answer gives the version; TestAPageThatWasCutShortIsNoticed
		}
		t.Run(string(kind), func(t *testing.T) {
			h, s := oddServer(t, listed)
			want, err := h.list(t.Context(), ".", 1000)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			p := faultproxy.New(t, s.URL, faultproxy.Plan{
				Script: func(_ int, r *http.Request) faultproxy.Kind {
					again := seen[r.URL.Path]
					if seen[r.URL.Path] = true; again {
						return faultproxy.None
					}
					return kind
				}})
			h.base, _ = url.Parse(p.URL + "/")
			h.client.patience = time.Second
			h.client.connect(newDialer())
			l, err := h.list(t.Context(), ".", 1000)
			if err != nil || len(l) != len(want) {
				t.Fatalf("the folder has %v (%v)", l, err)
			}
			for _, o := range l {
				if o.refused != nil || o.size != int64(len(model[o.name])) {
					t.Errorf("%s: %d bytes, %v", o.name, o.size, o.refused)
				}
			}
		})
	}
}

// listed has a page with all files of the model.
func listed(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.URL.Path != "/" {
		next.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	for name := range model {
		fmt.Fprintf(w, `<a href="%s">`, name)
	}
}
