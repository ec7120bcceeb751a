package stores

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
)

// The tokens that the Hub knows.
const (
	Token         = "hf_memberOfEverything" // may read every repository
	StrangerToken = "hf_strangerToAll"      // is valid, and may read only what everyone may
)

// Access says who may read a repository.
type Access int

// The kinds of access.
const (
	Public  Access = iota
	Gated          // listed for everyone, read by those who were accepted
	Private        // looks missing to others
)

// HubOptions are how a Hub behaves. The zero value is a good one.
type HubOptions struct {
	// Storage has the large files, and is another origin; nil starts versitygw. It must be S3 or
	// Moto. To record what comes to it, pass one that is At a proxy.
	Storage *Server
	Expiry  time.Duration // of the URLs of large files, in whole seconds; 0: an hour
	Page    int           // entries of one page of a listing; 0: 1000
	// Authority serves https with its certificate.
	Authority *Authority
}

// Hub is a stand-in for the Hugging Face Hub: listings, commits, and files by redirect. The client
// huggingface_hub judges it in testdata/interop/stand_in.py.
type Hub struct {
	URL string
	Log faultproxy.Log // of requests to the Hub, not to the storage

	o       HubOptions
	home    string
	mu      sync.Mutex
	repos   map[string]*repository
	renamed map[string]string // the new id by the old one
	limited int               // requests that are refused next
	reset   int               // seconds that the refusal announces
}

// repository is one that was put, with all its commits.
type repository struct {
	access  Access
	commits map[string]commit
	refs    map[string]string // commits by branch or tag
}

// commit is the files of a commit by name.
type commit map[string]*blob

// blob is one file of a commit.
type blob struct {
	oid     string // of git: of the content, or of the pointer to a large file
	size    int64
	sha256  string          // of a large file
	pointer int             // the size of the pointer to a large file
	content []byte          // of a small file
	header  json.RawMessage // of a safetensors file
}

// StartHub starts a Hub without repositories.
func StartHub(t TB, o HubOptions) *Hub {
	t.Helper()
	if o.Storage == nil {
		o.Storage = S3(t, "")
	}
	if o.Expiry == 0 {
		o.Expiry = time.Hour
	}
	if o.Page == 0 {
		o.Page = 1000
	}
	// The storage has another host name too, not only another port.
	o.Storage = o.Storage.At(strings.Replace(o.Storage.URL, "127.0.0.1", "localhost", 1))
	h := &Hub{o: o, home: t.TempDir(), repos: map[string]*repository{},
		renamed: map[string]string{}}
	h.URL = serve(t, h.Log.Handler(h), o.Authority)
	return h
}

// Env is the environment that a client needs, without a token.
func (h *Hub) Env() []string { return h.EnvAt(h.URL) }

// EnvAt is the environment for clients that come through a proxy.
func (h *Hub) EnvAt(url string) []string {
	env := map[string]string{"HF_ENDPOINT": url, "HF_HOME": h.home, "HF_HUB_DISABLE_TELEMETRY": "1"}
	if h.o.Authority != nil {
		env["SSL_CERT_FILE"] = h.o.Authority.File
	}
	return environ(env)
}

// Source is the SOURCE of a repository, as org/name or org/name@rev.
func (h *Hub) Source(id string) string { return "hf://" + id }

// Put makes all files below a folder the next commit of a repository's main branch.
func (h *Hub) Put(t TB, id, folder string) (oid string) {
	t.Helper()
	c := commit{}
	err := walk(folder, func(name string, f *os.File, size int64) (err error) {
		c[name], err = h.add(name, f, size)
		return err
	})
	if err != nil {
		t.Fatalf("hub: put %s: %v", folder, err)
	}
	return h.commit(id, c)
}

// Write makes a commit that changes one file.
func (h *Hub) Write(t TB, id, name string, content []byte) (oid string) {
	t.Helper()
	b, err := h.add(name, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("hub: write %s: %v", name, err)
	}
	c := commit{}
	if r := h.repository(id); r != nil {
		maps.Copy(c, r.commits[r.refs["main"]])
	}
	c[name] = b
	return h.commit(id, c)
}

// add stores a file. Weights and files from 10 MiB on are large files.
func (h *Hub) add(name string, f io.ReadSeeker, size int64) (*blob, error) {
	if !strings.HasSuffix(name, ".safetensors") && size < 10<<20 {
		content, err := io.ReadAll(f)
		return &blob{oid: gitID("blob", content), size: size, content: content}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(sum.Sum(nil))
	pointer := fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", id, size)
	b := &blob{oid: gitID("blob", pointer), size: size, sha256: id, pointer: len(pointer)}
	b.header = safetensorsHeader(f, size)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return b, h.o.Storage.put(b.object(), f, size)
}

// object is the name of a large file in the storage.
func (b *blob) object() string { return "lfs/" + b.sha256[:2] + "/" + b.sha256 }

// safetensorsHeader gives the header of a safetensors file, or nil if it has none.
func safetensorsHeader(f io.ReadSeeker, size int64) json.RawMessage {
	var n uint64
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil
	}
	if binary.Read(f, binary.LittleEndian, &n) != nil || n > uint64(size) {
		return nil
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(f, text); err != nil || !json.Valid(text) {
		return nil
	}
	return text
}

// gitID is the SHA-1 that git gives to an object.
func gitID(kind string, content []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", kind, len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// commit makes a commit the head of main.
func (h *Hub) commit(id string, c commit) (oid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repos[id]
	if r == nil {
		r = &repository{commits: map[string]commit{}, refs: map[string]string{}}
		h.repos[id] = r
	}
	text := fmt.Appendf(nil, "%s after %s\n", id, r.refs["main"])
	for _, name := range slices.Sorted(maps.Keys(c)) {
		text = fmt.Appendf(text, "%s %s\n", c[name].oid, name)
	}
	oid = gitID("commit", text)
	r.commits[oid], r.refs["main"] = c, oid
	return oid
}

// repository finds one by its present id.
func (h *Hub) repository(id string) *repository {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.repos[id]
}

// Tag names a commit: a tag, or a branch that does not move.
func (h *Hub) Tag(id, name, commit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[id].refs[name] = commit
}

// Restrict says who may read a repository.
func (h *Hub) Restrict(id string, a Access) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[id].access = a
}

// Rename moves a repository. Its old name redirects to the new one.
func (h *Hub) Rename(from, to string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[to], h.renamed[from] = h.repos[from], to
	delete(h.repos, from)
}

// Limit refuses the next requests with 429, which announces when to come again.
func (h *Hub) Limit(requests, seconds int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limited, h.reset = requests, seconds
}
