package serve

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/size"
)

var digits = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Every file of every layout has the bytes of the tree, whole and by HEAD.
func TestFilesAreThoseOfTheTree(t *testing.T) {
	s := serveSynth(t, Options{})
	for _, layout := range layouts {
		for name, want := range s.files(layout) {
			at := "/tiny/" + layout + "/resolve/main/" + name
			got := s.get(at, nil)
			if !bytes.Equal(got.body, want) {
				t.Errorf("%s differs", at)
			}
			head := s.do("HEAD", at)
			for _, header := range []string{"ETag", "X-Repo-Commit", "Content-Length",
				"Accept-Ranges"} {
				if v := head.header.Get(header); v == "" || v != got.header.Get(header) {
					t.Errorf("%s: %s is %q by HEAD, %q by GET", at, header, v,
						got.header.Get(header))
				}
			}
			if tag := strings.Trim(head.header.Get("ETag"), `"`); !digits.MatchString(tag) {
				t.Errorf("%s: ETag %s", at, tag)
			}
			if got := head.header.Get("Content-Length"); got != fmt.Sprint(len(want)) {
				t.Errorf("%s: Content-Length %s of %d", at, got, len(want))
			}
		}
	}
}

// entry is what the API says about a file or folder.
type entry struct {
	Type, Path, OID string
	Size            int64
}

// repoInfo is what the API says about a repository.
type repoInfo struct {
	ID, SHA  string
	Siblings []struct {
		RFilename, BlobID string
		Size              int64
	}
}

// The names, sizes and ids of the API are right, and no tensor is read for them.
func TestListingsNeedNoTensors(t *testing.T) {
	s := serveSynth(t, Options{})
	for _, layout := range layouts {
		var tree []entry
		s.get("/api/models/tiny/"+layout+"/tree/main?recursive=true", &tree)
		var info repoInfo
		s.get("/api/models/tiny/"+layout+"/revision/main?blobs=True", &info)
		if !digits.MatchString(info.SHA) || info.ID != "tiny/"+layout {
			t.Errorf("%+v", info)
		}
		if n := s.tree.Stats().SourceBytes; n > 1<<16 {
			t.Errorf("%d bytes of the source were read", n)
		}
		want := s.files(layout)
		if len(tree) != len(want) || len(info.Siblings) != len(want) {
			t.Errorf("%d entries, %d siblings, %d files", len(tree), len(info.Siblings), len(want))
		}
		for i, e := range tree {
			data, ok := want[e.Path]
			if !ok || e.Type != "file" || e.Size != int64(len(data)) {
				t.Errorf("%+v", e)
			}
			if sib := info.Siblings[i]; sib.RFilename != e.Path || sib.BlobID != e.OID ||
				sib.Size != e.Size {
				t.Errorf("%+v is %+v among the siblings", e, sib)
			}
			if strings.HasSuffix(e.Path, ".safetensors") {
				continue
			}
			sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
			if e.OID != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: id %s is not the git id", e.Path, e.OID)
			}
		}
		s.tree = openTree(t, s.dir) // with fresh counters
	}
}

func TestPathsInfoTakesFormsAndJSON(t *testing.T) {
	s := serveSynth(t, Options{})
	for kind, body := range map[string]string{
		"application/x-www-form-urlencoded": "paths=config.json&paths=nothing&expand=False",
		"application/json":                  `{"paths": ["config.json", "nothing"]}`,
	} {
		r, err := http.Post(s.url+"/api/models/tiny/hf/paths-info/main", kind,
			strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || strings.Count(string(text), `"path"`) != 1 ||
			!strings.Contains(string(text), `"path":"config.json"`) {
			t.Errorf("%s: %d %s, %v", kind, r.StatusCode, text, err)
		}
	}
}

// What does not exist is refused with the code by which clients choose their exception.
func TestRefusalsHaveCodes(t *testing.T) {
	s := serveSynth(t, Options{})
	for at, want := range map[string]string{
		"/tiny/hf/resolve/main/nothing.json":                  "404 EntryNotFound",
		"/tiny/hf/resolve/main/":                              "404 EntryNotFound",
		"/tiny/hf/resolve/main/.dequantfs/status":             "404 EntryNotFound",
		"/tiny/hf/resolve/main/..%2fnative/x":                 "404 EntryNotFound",
		"/tiny/hf/resolve/other/config.json":                  "404 RevisionNotFound",
		"/tiny/other/resolve/main/config.json":                "404 RepoNotFound",
		"/other/hf/resolve/main/config.json":                  "404 RepoNotFound",
		"/api/models/tiny/other":                              "404 RepoNotFound",
		"/tiny/resolve/main/config.json":                      "404 RepoNotFound",
		"/api/models/tiny":                                    "404 RepoNotFound",
		"/api/models/tiny/revision/main":                      "404 RepoNotFound",
		"/api/models/tiny/tree/main":                          "404 RepoNotFound",
		"/tiny/hf":                                            "404 ",
		"/favicon.ico":                                        "404 ",
		"/api/models/tiny/hf/revision/0123456789":             "404 RevisionNotFound",
		"/api/models/tiny/hf/tree/main/nothing":               "404 EntryNotFound",
		"/api/models/tiny/hf/xet-read-token/main":             "404 ",
		"/api/datasets/tiny/hf":                               "404 ",
		"/api/whoami-v2":                                      "404 ",
		"/tiny/hf/resolve/main/" + strings.Repeat("x", 9000):  "404 EntryNotFound",
		"/tiny/hf/resolve/main/" + strings.Repeat("x", 99000): "431 ",
	} {
		r := s.do("GET", at)
		if got := fmt.Sprint(r.status, " ", r.header.Get("X-Error-Code")); got != want {
			t.Errorf("%.60s: %s, want %s", at, got, want)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "POST", "PATCH"} {
		if r := s.do(method, shard); r.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, r.status)
		}
	}
}

// Ranges are slices of the file, and those outside of it are refused.
func TestRangesAreSlices(t *testing.T) {
	s := serveSynth(t, Options{})
	want := s.files("hf")["model-00001-of-000002.safetensors"]
	n := int64(len(want))
	for _, c := range []struct {
		header   string
		from, to int64
	}{
		{"bytes=0-0", 0, 1}, {"bytes=0-", 0, n}, {"bytes=-1", n - 1, n}, {"bytes=5-8", 5, 9},
		{fmt.Sprintf("bytes=%d-%d", n-3, n+99), n - 3, n}, {fmt.Sprintf("bytes=-%d", n+5), 0, n},
	} {
		checkRange(t, s, want, c.header, c.from, c.to)
	}
	for _, seed := range size.Seeds(t) {
		r := rand.New(rand.NewPCG(seed, 0))
		for range size.Count(100, 3000) / 3 {
			from := r.Int64N(n)
			to := from + 1 + r.Int64N(n-from)
			checkRange(t, s, want, fmt.Sprintf("bytes=%d-%d", from, to-1), from, to)
		}
	}
	r := s.do("GET", shard, "Range", fmt.Sprintf("bytes=%d-", n))
	if r.status != http.StatusRequestedRangeNotSatisfiable ||
		r.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) {
		t.Errorf("a range after the end: %d, %s", r.status, r.header.Get("Content-Range"))
	}
}

func checkRange(t *testing.T, s *served, want []byte, header string, from, to int64) {
	t.Helper()
	r := s.do("GET", shard, "Range", header)
	place := fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(want))
	if r.status != http.StatusPartialContent || r.header.Get("Content-Range") != place {
		t.Errorf("%s: %d, %s", header, r.status, r.header.Get("Content-Range"))
	}
	if !bytes.Equal(r.body, want[from:to]) {
		t.Errorf("%s: %d other bytes", header, len(r.body))
	}
}

func TestSeveralRangesAreParts(t *testing.T) {
	s := serveSynth(t, Options{})
	want := s.files("hf")["model-00001-of-000002.safetensors"]
	r := s.do("GET", shard, "Range", "bytes=10-19,100000-199999,-7")
	kind, parameters, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("%s, %v", kind, err)
	}
	parts := multipart.NewReader(bytes.NewReader(r.body), parameters["boundary"])
	for _, slice := range [][]byte{want[10:20], want[100000:200000], want[len(want)-7:]} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, slice) {
			t.Errorf("%d other bytes, %v", len(got), err)
		}
	}
}

// A client with the present version gets nothing again, and one with another version gets the
// whole.
func TestConditionsCompareVersions(t *testing.T) {
	s := serveSynth(t, Options{})
	whole := s.get(shard, nil)
	tag := whole.header.Get("ETag")
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"If-None-Match", tag}, http.StatusNotModified},
		{[]string{"If-None-Match", `"other"`}, http.StatusOK},
		{[]string{"If-Match", tag}, http.StatusOK},
		{[]string{"If-Match", `"other"`}, http.StatusPreconditionFailed},
		{[]string{"Range", "bytes=1-2", "If-Range", tag}, http.StatusPartialContent},
		{[]string{"Range", "bytes=1-2", "If-Range", `"other"`}, http.StatusOK},
		{[]string{"Range", "bytes=1-2", "If-Range", time.Now().UTC().Format(http.TimeFormat)},
			http.StatusOK},
	} {
		r := s.do("GET", shard, c.headers...)
		if r.status != c.status {
			t.Errorf("%v: %d, want %d", c.headers, r.status, c.status)
		}
		if r.status == http.StatusOK && !bytes.Equal(r.body, whole.body) {
			t.Errorf("%v: not the whole file", c.headers)
		}
	}
}

// The version is the same after a restart. It changes with the source, with the options of a view
// and with the program, and then all shards have other ETags.
func TestVersionsFollowTheSource(t *testing.T) {
	s := serveSynth(t, Options{})
	versions := func(o Options) string {
		o.Name = "tiny"
		h, err := New(openTree(t, s.dir), o)
		if err != nil {
			t.Fatal(err)
		}
		return h.repos["tiny/hf"].commit
	}
	before := versions(Options{})
	seen := map[string]bool{before: true, s.h.repos["tiny/native"].commit: true}
	if again := versions(Options{}); again != before || len(seen) != 2 {
		t.Errorf("after a restart the version is %s, not %s", again, before)
	}
	if v := versions(Options{Version: "v2"}); seen[v] {
		t.Error("another program has the same version")
	}
	name := filepath.Join(s.dir, "model-00001-of-000002.safetensors")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(name, later, later); err != nil {
		t.Fatal(err)
	}
	if v := versions(Options{}); seen[v] {
		t.Error("a changed source has the same version")
	}
}

func TestTokensAreRequired(t *testing.T) {
	const token = "0123456789abcdef-secret"
	s := serveSynth(t, Options{Token: token})
	for header, want := range map[string]int{
		"Bearer " + token: 200, "bearer " + token: 200,
		"": 401, token: 401, "Bearer": 401, "Bearer ": 401, "Bearer x": 401, "Basic " + token: 401,
		"Bearer " + token + "x": 401, "Bearer " + token[1:]: 401,
	} {
		for _, at := range []string{"/", shard, "/api/models", "/api/models/tiny/hf", "/nothing"} {
			want := want
			if want == 200 && at == "/nothing" {
				want = 404
			}
			r := s.do("GET", at, "Authorization", header)
			if r.status != want {
				t.Errorf("%s with %q: %d, want %d", at, header, r.status, want)
			}
			if bytes.Contains(r.body, []byte(token)) {
				t.Errorf("%s shows the token", at)
			}
		}
	}
}

// If the source changes, no client takes what it gets for the whole.
func TestBrokenSourcesAbortAnswers(t *testing.T) {
	s := serveSynth(t, Options{})
	if err := os.Truncate(filepath.Join(s.dir, "model-00001-of-000002.safetensors"),
		5000); err != nil {
		t.Fatal(err)
	}
	r, err := http.Get(s.url + shard)
	if err == nil {
		defer r.Body.Close()
		var n int64
		n, err = io.Copy(io.Discard, r.Body)
		if err == nil {
			t.Errorf("%d bytes are taken for the whole", n)
		}
	}
	if s.h.Stats().Aborted == 0 || s.h.Stats().Active != 0 {
		t.Errorf("%+v", s.h.Stats())
	}
	s.get("/tiny/hf/resolve/main/config.json", nil) // the rest is still served
}

// Many clients read at once, each in another order, and all get the right bytes.
func TestManyClientsReadAtOnce(t *testing.T) {
	s := serveSynth(t, Options{})
	var wg sync.WaitGroup
	want := map[string]map[string][]byte{}
	for _, layout := range layouts {
		want[layout] = s.files(layout)
	}
	for client := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(client), 0))
			for range size.Count(4, 100) {
				layout := layouts[r.IntN(len(layouts))]
				for name, data := range want[layout] {
					from := r.IntN(len(data))
					to := from + 1 + r.IntN(len(data)-from)
					got := s.do("GET", "/tiny/"+layout+"/resolve/main/"+name, "Range",
						fmt.Sprintf("bytes=%d-%d", from, to-1))
					if got.err != nil || !bytes.Equal(got.body, data[from:to]) {
						t.Errorf("%s/%s [%d,%d) differs: %v", layout, name, from, to, got.err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestNamesAreIDs(t *testing.T) {
	for text, want := range map[string]string{
		"DeepSeek-V3": "DeepSeek-V3", "a b/c": "a-b-c", "-.x.-": "x", "a--b..c": "a-b.c",
		"": "checkpoint", "..": "checkpoint", "api": "my-api", "Models": "my-Models", "é": "checkpoint",
		strings.Repeat("x", 200): strings.Repeat("x", 96),
	} {
		if got := Name(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
