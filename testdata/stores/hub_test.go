package stores

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
)

// still is a client that follows no redirect.
var still = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}}

func decode[T any](t *testing.T, body []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

func TestTheHubListsPageByPage(t *testing.T) {
	h := StartHub(t, HubOptions{Page: 2})
	dir, files := folderOf(t)
	oid := h.Put(t, "org/model", dir)
	url, seen := h.URL+"/api/models/org/model/tree/"+oid+"?recursive=true", 0
	for pages := 0; url != ""; pages++ {
		resp, body := get(t, still, url)
		for _, e := range decode[[]struct {
			Type, Path string
			Size       int
			LFS        struct{ OID string }
		}](t, body) {
			large := e.Path == "model.safetensors"
			if e.Type == "file" && e.Size == len(files[e.Path]) && (e.LFS.OID != "") == large {
				seen++
			}
		}
		url, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		if pages > 9 {
			t.Fatal("the pages do not end")
		}
	}
	if seen != len(files) {
		t.Errorf("%d of %d files were listed", seen, len(files))
	}
}

func TestTheHubRedirectsToAnotherOriginThatNeverSeesTheToken(t *testing.T) {
	s3 := S3(t, "")
	storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
	h := StartHub(t, HubOptions{Storage: s3.At(storage.URL), Expiry: time.Second})
	dir, files := folderOf(t)
	oid := h.Put(t, "org/model", dir)
	resp, _ := get(t, still, h.URL+"/org/model/resolve/main/model.safetensors",
		"Authorization", "Bearer "+Token)
	to := resp.Header.Get("Location")
	if resp.StatusCode != 302 || resp.Header.Get("X-Repo-Commit") != oid ||
		!strings.HasPrefix(to, "http://localhost:") {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	if resp, body := get(t, still, to, "Range", "bytes=7-9"); resp.StatusCode != 206 ||
		!bytes.Equal(body, files["model.safetensors"][7:10]) {
		t.Fatalf("%s %q", resp.Status, body)
	}
	for _, r := range storage.Log.Requests() {
		if r.Authorized() {
			t.Errorf("%s %s has an Authorization header", r.Method, r.Path)
		}
	}
	if h.Log.Count(faultproxy.Request.Authorized) != 1 {
		t.Error("the Hub did not record the token that it got")
	}
	time.Sleep(2100 * time.Millisecond)
	if resp, _ := get(t, still, to); resp.StatusCode != 403 {
		t.Errorf("expired, but %s", resp.Status)
	}
}

func TestTheHubRefusesAsTheRealOneDoes(t *testing.T) {
	h := StartHub(t, HubOptions{})
	repositories := map[string]Access{"o/public": Public, "o/gated": Gated, "o/private": Private}
	for id, a := range repositories {
		h.Write(t, id, "config.json", []byte("{}"))
		h.Restrict(id, a)
	}
	h.Write(t, "o/old", "config.json", []byte("{}"))
	h.Rename("o/old", "o/new")
	for _, c := range []struct {
		path, token string
		status      int
		code        string
	}{
		{"/o/public/resolve/main/config.json", "", 200, ""},
		{"/o/public/resolve/main/missing", "", 404, "EntryNotFound"},
		{"/o/public/resolve/v9/config.json", "", 404, "RevisionNotFound"},
		{"/api/models/o/public/tree/main/missing", "", 404, "EntryNotFound"},
		{"/api/models/o/public/revision/v9", "", 404, "RevisionNotFound"},
		{"/api/models/o/missing", "", 401, "RepoNotFound"},
		{"/api/models/o/missing", StrangerToken, 404, "RepoNotFound"},
		{"/api/models/o/public", "nonsense", 401, ""},
		{"/api/models/o/gated/revision/main", "", 200, ""},
		{"/o/gated/resolve/main/config.json", "", 401, "GatedRepo"},
		{"/o/gated/resolve/main/config.json", StrangerToken, 403, "GatedRepo"},
		{"/o/gated/resolve/main/config.json", Token, 200, ""},
		{"/api/models/o/private", "", 401, "RepoNotFound"},
		{"/api/models/o/private", StrangerToken, 404, "RepoNotFound"},
		{"/api/models/o/private", Token, 200, ""},
		{"/o/old/resolve/main/config.json", "", 307, ""},
		{"/api/models/o/old/tree/main?recursive=true", "", 307, ""},
		{"/nonsense/a/b/c", "", 404, ""},
	} {
		var header []string
		if c.token != "" {
			header = []string{"Authorization", "Bearer " + c.token}
		}
		resp, body := get(t, still, h.URL+c.path, header...)
		if code := resp.Header.Get("X-Error-Code"); resp.StatusCode != c.status || code != c.code {
			t.Errorf("%s with %q: %s %q %s", c.path, c.token, resp.Status, code, body)
		}
	}
	resp, _ := get(t, still, h.URL+"/api/models/o/old/tree/main?recursive=true")
	if to := resp.Header.Get("Location"); to != "/api/models/o/new/tree/main?recursive=true" {
		t.Errorf("renamed to %s", to)
	}
}

func TestTheHubLimitsTheRate(t *testing.T) {
	h := StartHub(t, HubOptions{})
	h.Write(t, "o/m", "a", []byte("x"))
	h.Limit(1, 3)
	resp, _ := get(t, still, h.URL+"/api/models/o/m")
	if resp.StatusCode != 429 || resp.Header.Get("RateLimit") != `"resolvers";r=0;t=3` {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if resp, _ := get(t, still, h.URL+"/api/models/o/m"); resp.StatusCode != 200 {
		t.Errorf("after the limit: %s", resp.Status)
	}
}

func TestTheHubKeepsOldCommits(t *testing.T) {
	h := StartHub(t, HubOptions{})
	first := h.Write(t, "o/m", "a", []byte("one"))
	h.Write(t, "o/m", "a", []byte("two"))
	h.Tag("o/m", "refs/pr/1", first)
	for rev, want := range map[string]string{"main": "two", first: "one", "refs%2Fpr%2F1": "one"} {
		if _, body := get(t, still, h.URL+"/o/m/resolve/"+rev+"/a"); string(body) != want {
			t.Errorf("%s: %s", rev, body)
		}
	}
}

func TestTheHubGivesTheHeadersOfAllShards(t *testing.T) {
	h := StartHub(t, HubOptions{})
	header := `{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	shard := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	h.Write(t, "o/m", "a.safetensors", append(append(shard, header...), 'x'))
	h.Write(t, "o/m", "i.json", []byte(`{"metadata":{"total_size":1},"weight_map":{"w":"a.safetensors"}}`))
	_, body := get(t, still, h.URL+"/api/models/o/m/safetensors-metadata/i.json")
	want := `{"headers":{"a.safetensors":` + header + `},"index":{"metadata":{"total_size":1}}}`
	if string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}
