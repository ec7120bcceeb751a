package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	iofs "io/fs"
	"net"
	"net/http"
	"path"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// served is a server with its tree.
type served struct {
	t    testing.TB
	dir  string // of the source
	tree *fs.FS
	h    *Handler
	url  string
}

// layouts are the views that serveSynth serves.
var layouts = []string{adapter.LayoutNative, adapter.LayoutHF}

// openTree opens a source and plans a view for each layout.
func openTree(t testing.TB, dir string) *fs.FS {
	t.Helper()
	c, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var views []fs.View
	for _, l := range layouts {
		p, err := adapter.NewPlan(c, adapter.Options{Layout: l})
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, fs.View{Dir: l, Plan: p})
	}
	f, err := fs.New(c, views, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// serveSynth serves a small checkpoint at an address of its own.
func serveSynth(t testing.TB, o Options) *served {
	t.Helper()
	return serveCheckpoint(t, o, synth.Options{Shards: 2})
}

// serveCheckpoint does the same for a checkpoint of some size.
func serveCheckpoint(t testing.TB, o Options, of synth.Options) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir()}
	if err := synth.DeepSeek(of).Write(s.dir); err != nil {
		t.Fatal(err)
	}
	s.tree = openTree(t, s.dir)
	o.Name = "tiny"
	h, err := New(s.tree, o)
	if err != nil {
		t.Fatal(err)
	}
	s.h = h
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := h.Server(h)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	s.url = "http://" + l.Addr().String()
	return s
}

// reply is an answer that was read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

// do sends a request with pairs of header names and values.
func (s *served) do(method, at string, header ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, s.url+at, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, body, err}
}

// get is do that requires success, and decodes JSON into value unless that is nil.
func (s *served) get(at string, value any) reply {
	s.t.Helper()
	r := s.do("GET", at)
	if r.status != http.StatusOK || r.err != nil {
		s.t.Fatalf("%s: %d %s %v", at, r.status, r.body, r.err)
	}
	if value != nil {
		if err := json.Unmarshal(r.body, value); err != nil {
			s.t.Fatalf("%s: %v", at, err)
		}
	}
	return r
}

// files reads the files of a layout from the tree, which export reads too.
func (s *served) files(layout string) map[string][]byte {
	s.t.Helper()
	all := map[string][]byte{}
	err := iofs.WalkDir(s.tree, layout, func(name string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := iofs.ReadFile(s.tree, name)
		all[path.Clean(name[len(layout)+1:])] = data
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

const shard = "/tiny/hf/resolve/main/model-00001-of-000002.safetensors"
