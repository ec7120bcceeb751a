package stores

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
)

// FileOptions say what a plain file server does not do. The zero value is a good one.
type FileOptions struct {
	Authority *Authority // serves https with its certificate
	NoETag    bool       // only Last-Modified tells versions apart
	NoListing bool       // folders are 404
	NoRanges  bool       // always the whole file
	Log       *faultproxy.Log
}

// HTTP starts a plain file server over a folder.
func HTTP(t TB, dir string) *Server { return Files(t, dir, FileOptions{}) }

// HTTPS starts a plain file server over a folder, with a certificate of a new authority.
func HTTPS(t TB, dir string) *Server {
	return Files(t, dir, FileOptions{Authority: NewAuthority(t)})
}

// Files starts a plain file server over a folder; an empty dir is a new one.
func Files(t TB, dir string, o FileOptions) *Server {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	var h http.Handler = files{dir, o, http.FileServer(http.Dir(dir))}
	if o.Log != nil {
		h = o.Log.Handler(h)
	}
	server := &Server{URL: serve(t, h, o.Authority), kind: folder(dir)}
	if o.Authority != nil {
		server.ca = o.Authority.File
	}
	return server
}

// serve starts a server in this process; with an authority, it serves https.
func serve(t TB, h http.Handler, a *Authority) (url string) {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are part of tests
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	if a == nil {
		server.Start()
		return server.URL
	}
	server.TLS = a.config()
	server.StartTLS()
	return server.URL
}

// files serves a folder, and leaves out what the options say.
type files struct {
	dir   string
	o     FileOptions
	serve http.Handler
}

func (f files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, err := os.Stat(filepath.Join(f.dir, filepath.FromSlash(r.URL.Path)))
	if err == nil && info.IsDir() && f.o.NoListing {
		http.NotFound(w, r)
		return
	}
	if err == nil && !info.IsDir() && !f.o.NoETag {
		w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	}
	if f.o.NoRanges {
		r.Header.Del("Range")
	}
	f.serve.ServeHTTP(w, r)
}

// folder is the folder of a file server.
type folder string

// env is empty: the URL says it all.
func (folder) env(string) map[string]string { return map[string]string{} }

func (folder) source(url, prefix string) string {
	return url + "/" + strings.TrimSuffix(prefix, "/") + "/"
}

// put replaces the file, so that no reader sees half of it.
func (f folder) put(name string, content io.Reader, _ int64) error {
	to := filepath.Join(string(f), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	w, err := os.CreateTemp(filepath.Dir(to), ".put-")
	if err != nil {
		return err
	}
	_, err = io.Copy(w, content)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(w.Name(), to)
}

func (f folder) remove(name string) error {
	return os.Remove(filepath.Join(string(f), filepath.FromSlash(name)))
}
