// Package stores starts the real servers that remote sources are tested against, on free ports of
// loopback, and puts checkpoints into them. They end with the test.
//
//	s := stores.S3(t, "")
//	s.Put(t, "org/model", folder)
//	stores.Setenv(t, s.Env())
//	… open s.Source("org/model") …
//
// With a proxy in between, s.At(proxy.URL) gives the environment and the SOURCE. The programs are
// installed by .ci/run install. If one is missing, the test is skipped, or fails if
// DEQUANTFS_REQUIRE names "stores".
//
// Only tests and programs for tests import it.
package stores

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// TB is the part of testing.TB that is used here.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Bucket is the bucket or container of every store that has such.
const Bucket = "models"

// Server is a store that runs. Names of objects are relative to Bucket.
type Server struct {
	URL string // where a client finds it
	kind
	ca string
}

// kind is what differs between stores. The URL is that of the server or of a proxy.
type kind interface {
	env(url string) map[string]string
	source(url, prefix string) string
	put(name string, content io.Reader, size int64) error
	remove(name string) error
}

// At gives the same store as clients see it through a proxy.
func (s *Server) At(url string) *Server {
	through := *s
	through.URL = url
	return &through
}

// Trusting gives the same store to clients that trust the authority in a PEM file.
func (s *Server) Trusting(ca string) *Server {
	trusting := *s
	trusting.ca = ca
	return &trusting
}

// Env is the environment that a client needs, as "NAME=value".
func (s *Server) Env() []string {
	env := s.env(s.URL)
	if s.ca != "" {
		env["SSL_CERT_FILE"] = s.ca
	}
	return environ(env)
}

// environ gives variables as a process gets them, in order.
func environ(env map[string]string) (list []string) {
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// Setenv sets the environment for the rest of a test.
func Setenv(t interface{ Setenv(name, value string) }, env []string) {
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// Source is the SOURCE of the objects below a prefix.
func (s *Server) Source(prefix string) string { return s.source(s.URL, prefix) }

// Put copies all files below a folder into the store, as objects below a prefix.
func (s *Server) Put(t TB, prefix, folder string) {
	t.Helper()
	err := walk(folder, func(name string, f *os.File, size int64) error {
		return s.put(path.Join(prefix, name), f, size)
	})
	if err != nil {
		t.Fatalf("put %s: %v", folder, err)
	}
}

// walk calls do for each file below a folder.
func walk(folder string, do func(name string, f *os.File, size int64) error) error {
	return filepath.WalkDir(folder, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, p)
		if err != nil {
			return err
		}
		return do(filepath.ToSlash(name), f, info.Size())
	})
}

// Write makes or overwrites an object.
func (s *Server) Write(t TB, name string, content []byte) {
	t.Helper()
	if err := s.put(name, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
}

// Remove removes an object.
func (s *Server) Remove(t TB, name string) {
	t.Helper()
	if err := s.remove(name); err != nil {
		t.Fatalf("remove %s: %v", name, err)
	}
}

// request sends a request that must succeed.
func request(method, url string, body io.Reader, size int64, header map[string]string) error {
	if size == 0 {
		body = http.NoBody
	}
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	r.ContentLength = size
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, r.URL.Path, resp.Status, text)
	}
	return err
}
