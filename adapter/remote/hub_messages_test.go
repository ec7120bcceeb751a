package remote

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/stores"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// Each message says what happened and what helps, on one line.
func TestServedTheHubsRefusalsTellTheWayOut(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	for id, a := range map[string]stores.Access{
		"o/public": stores.Public, "o/gated": stores.Gated, "o/private": stores.Private,
	} {
		h.Write(t, id, "config.json", []byte("{}"))
		h.Restrict(id, a)
	}
	h.Tag("o/public", "v1", h.Write(t, "o/public", "a", nil))
	login := `run "hf auth login" or set HF_TOKEN`
	for _, c := range []struct {
		name, source, token string
		want                []string // in the message; none: it is read
		missing             bool
	}{
		{"public", "o/public", "", nil, false},
		{"public with any valid token", "o/public", stores.StrangerToken, nil, false},
		{"gated and accepted", "o/gated", stores.Token, nil, false},
		{"private and allowed", "o/private", stores.Token, nil, false},
		{"gated without a token", "o/gated", "",
			[]string{"hf://o/gated is gated: accept its conditions at " + h.URL + "/o/gated, then " + login}, false},
		{"gated and not accepted", "o/gated", stores.StrangerToken,
			[]string{"hf://o/gated is gated: accept", "/o/gated, with the account of the token in HF_TOKEN"}, false},
		{"private without a token", "o/private", "",
			[]string{h.URL + " has no model o/private, or it is private: check the name", login}, true},
		{"private and not allowed", "o/private", stores.StrangerToken,
			[]string{"has no model o/private, or it is private", "use a token that may read it (this one is in HF_TOKEN)"}, true},
		{"missing", "o/missing", "", []string{"has no model o/missing, or it is private: check the name"}, true},
		{"wrong token", "o/public", "hf_outdated",
			[]string{h.URL + " refuses the token in HF_TOKEN, which is wrong or has expired: set another one, or unset it"}, false},
		{"no such revision", "o/public@v9", "",
			[]string{`o/public has no revision "v9", but main, v1: write one after @`}, true},
		{"no such commit", "o/public@" + fakeCommit, "", []string{"has no revision " + `"` + fakeCommit}, true},
		{"a branch with a slash", "o/public@my/branch", "", []string{`no revision "my"`, "write %2F for a slash"}, true},
		{"no such folder", "o/public/b", "", []string{`hf://o/public has no folder "b"`}, true},
		{"a file", "o/public/config.json", "", []string{`hf://o/public: "config.json" is a file, but no shard`}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			useHub(t, h, c.token)
			s, _, err := Open(t.Context(), "hf://"+c.source, Options{})
			if err == nil {
				defer s.Close()
				_, err = readRemote(t, s, "config.json", 0, 2)
			}
			if err == nil || len(c.want) == 0 {
				if err != nil || len(c.want) != 0 {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got  %v\nwant %s", err, part)
				}
			}
			if strings.Contains(err.Error(), "tries") {
				t.Errorf("it was asked for again: %v", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("several lines: %q", err)
			}
			if c.token != "" && strings.Contains(err.Error(), c.token) {
				t.Errorf("it shows the token: %q", err)
			}
			if errors.Is(err, source.ErrMissing) != c.missing {
				t.Errorf("missing is %v: %v", !c.missing, err)
			}
		})
	}
}

func TestServedATokenFromAFileIsNamedByItsFile(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	h.Write(t, "o/m", "config.json", []byte("{}"))
	useHub(t, h, "")
	file := filepath.Join(t.TempDir(), "token")
	t.Setenv("HF_TOKEN_PATH", file)
	if err := os.WriteFile(file, []byte("hf_outdated"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(t.Context(), "hf://o/m", Options{})
	if want := file + `, which is wrong or has expired: run "hf auth login" again`; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	// Once the user has logged in, the same process reads on.
	h.Restrict("o/m", stores.Private)
	if err := os.WriteFile(file, []byte(stores.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readRemote(t, openStore(t, "hf://o/m"), "config.json", 0, 2); string(got) != "{}" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestServedALimitedRateIsWaitedForIfItIsShort(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	h.Write(t, "o/m", "config.json", []byte("{}"))
	useHub(t, h, "")
	h.Limit(1, 1)
	openStore(t, "hf://o/m")
	h.Limit(1, 290)
	_, _, err := Open(t.Context(), "hf://o/m", Options{})
	if want := `limits the rate of requests: try again in 290 s, or run "hf auth login" for a higher limit`; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Two ways out in one message contradict each other.
func TestAnUnreachableHubHasOneWayOut(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	signed := httptest.NewTLSServer(http.NotFoundHandler())
	defer signed.Close()
	clearHub(t)
	for endpoint, want := range map[string]string{
		closed.URL: "cannot reach " + closed.URL +
			": nothing answers there: correct HF_ENDPOINT, or " +
			"unset it, or set HF_HUB_OFFLINE=1 to read what is downloaded (",
		"http://missing.invalid": "there is no server missing.invalid: correct HF_ENDPOINT, or unset it",
		signed.URL:               "its certificate is not trusted: put that of its authority",
	} {
		t.Setenv("HF_ENDPOINT", endpoint)
		_, _, err := Open(t.Context(), "hf://o/m", Options{})
		text := fmt.Sprint(err)
		ways := 0
		for _, way := range []string{"check the network", "correct HF_ENDPOINT", "correct the",
			"put that"} {
			ways += strings.Count(text, way)
		}
		if !strings.Contains(text, want) || ways != 1 {
			t.Errorf("%d ways out in %s; want %s", ways, text, want)
		}
	}
}

func TestAnUnreachableHubIsSaid(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	clearHub(t)
	for endpoint, want := range map[string]string{
		s.URL:                 "cannot reach " + s.URL + ": nothing answers there",
		"ftp://host":          "HF_ENDPOINT is not the address of a web server",
		"huggingface.co":      "HF_ENDPOINT is not the address of a web server",
		"http://u:secret@h":   "HF_ENDPOINT has a password",
		"http://h/?a=secret":  "HF_ENDPOINT has a password, a query or a fragment",
		"http://[secret":      "HF_ENDPOINT is not the address of a web server",
		"http://h/a#fragment": "HF_ENDPOINT has a password, a query or a fragment",
	} {
		t.Setenv("HF_ENDPOINT", endpoint)
		_, _, err := Open(t.Context(), "hf://o/m", Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", endpoint, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: it shows the secret: %v", endpoint, err)
		}
	}
}

func TestAnEndpointThatIsNotAHubIsSaid(t *testing.T) {
	for body, want := range map[string]string{
		"<html>":                     "is not what the Hub sends",
		"{}":                         "does not tell the commit of hf://o/m",
		`{"sha": "main"}`:            "does not tell the commit of hf://o/m",
		`{"sha": "` + fakeOID + `"}`: "does not end",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/tree/") {
				w.Header().Set("Link", `<?a>; rel="next"`)
				body = "[]"
			}
			_, _ = w.Write([]byte(body))
		}))
		clearHub(t)
		t.Setenv("HF_ENDPOINT", s.URL)
		_, _, err := Open(t.Context(), "hf://o/m", Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", body, err, want)
		}
		s.Close()
	}
}

// A commit is what was asked for, or an error. A mirror may have another one.
func TestACommitIsNotReplaced(t *testing.T) {
	f := startFakeHub(t)
	if s := openStore(t, "hf://org/model@"+fakeCommit); s.Name() != "hf://org/model@"+fakeCommit {
		t.Errorf("it is %s", s.Name())
	}
	if s := openStore(t, "hf://org/model@"+fakeCommit[:7]); s.Name() != "hf://org/model@"+fakeCommit {
		t.Errorf("by a part of the commit it is %s", s.Name())
	}
	_, _, err := Open(t.Context(), "hf://org/model@"+fakeOID, Options{})
	want := f.URL + " has commit " + fakeCommit + " instead of " + fakeOID
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestServedOnlyWhatEveryoneMayReadIsPublic(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	for id, a := range map[string]stores.Access{
		"o/public": stores.Public, "o/gated": stores.Gated, "o/private": stores.Private,
	} {
		h.Write(t, id, "config.json", []byte("{}"))
		h.Restrict(id, a)
	}
	for _, c := range []struct {
		id, token string
		public    bool
	}{
		{"o/public", "", true},
		{"o/public", stores.Token, true},
		{"o/gated", stores.Token, false},
		{"o/private", stores.Token, false},
	} {
		useHub(t, h, c.token)
		s := openStore(t, "hf://"+c.id)
		f, err := s.Open(t.Context(), "config.json")
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Access(nil).Others(0, 0) && f.Mode() == 0o444; got != c.public {
			t.Errorf("%s with token %q: public is %v", c.id, c.token, got)
		}
	}
	for text, want := range map[string]bool{
		`{"private": false, "gated": false}`:    true,
		`{"private": false, "gated": "auto"}`:   false,
		`{"private": false, "gated": "manual"}`: false,
		`{"private": false, "gated": true}`:     false,
		`{"private": false}`:                    false,
		`{"gated": false}`:                      false,
		`{"private": true, "gated": false}`:     false,
		`{}`:                                    false,
	} {
		if got := infoOf(t, text).public(); got != want {
			t.Errorf("%s: public is %v", text, got)
		}
	}
}

// A mirror may be a folder of a web server.
func TestServedAMirrorIsUsedInsteadOfTheHub(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	useHub(t, h, "")
	dir := quantizedFolder(t, synth.Options{Single: true})
	oid := h.Put(t, "org/model", dir)
	to, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	mirror := httptest.NewServer(http.StripPrefix("/hub/huggingface", proxy))
	defer mirror.Close()
	t.Setenv("HF_ENDPOINT", mirror.URL+"/hub/huggingface/")
	h.Log.Reset()
	for _, name := range []string{
		"hf://org/model", "https://huggingface.co/org/model", mirror.URL + "/hub/huggingface/org/model/tree/main/",
	} {
		remote, local := openBoth(t, name, dir)
		sameTensors(t, remote, local)
	}
	_, o := backendOf(t, openStore(t, "hf://org/model@"+oid), "model.safetensors")
	if want := o.sha256 + " " + mirror.URL + "/hub/huggingface"; o.version != want {
		t.Errorf("version %q, want %q", o.version, want)
	}
}

func TestServedTheHashOfThePublisherIsKept(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	useHub(t, h, "")
	h.Write(t, "o/m", "a.safetensors", []byte("abc"))
	h.Write(t, "o/m", "config.json", []byte("{}"))
	s := openStore(t, "hf://o/m")
	for name, want := range map[string]string{
		"a.safetensors": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "config.json": "",
	} {
		f, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.(source.Published).SHA256(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// Offline, only what is downloaded is read, and nothing is asked for.
func TestServedOfflineReadsTheLocalCache(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	useHub(t, h, "")
	cache := t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	model := filepath.Join(cache, "models--org--model")
	snapshot := filepath.Join(model, "snapshots", fakeCommit)
	if err := os.MkdirAll(filepath.Dir(snapshot), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := quantizedFolder(t, synth.Options{Single: true})
	if err := os.Rename(dir, snapshot); err != nil {
		t.Fatal(err)
	}
	for _, variable := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "1")
			var text bytes.Buffer
			for _, name := range []string{"hf://org/model@" + fakeCommit, "https://huggingface.co/org/model/tree/01234567/",
				"hf://org/model@0123/model.safetensors"} {
				s, single, err := Open(t.Context(), name, Options{Logger: warnings(&text)})
				if err != nil {
					t.Fatal(err)
				}
				c, err := adapter.OpenStore(t.Context(), s, adapter.OpenOptions{Single: single})
				if err != nil {
					t.Fatal(err)
				}
				if c.Folder() != snapshot || len(c.Tensors()) == 0 {
					t.Errorf("%s: opened %s", name, c.Folder())
				}
				_ = c.Close()
			}
			if !strings.Contains(text.String(), variable+" is set: hf://org/model@0123 is read from the local cache") {
				t.Errorf("warned of %q", text.String())
			}
			for name, want := range map[string]string{
				"hf://org/other":       variable + " is set, so only the local cache is read (unset it to read from the Hub): no such",
				"hf://org/model@v2":    `(unset it to read from the Hub): revision "v2" is not in`,
				"hf://org/model/below": "folders of hf://org/model cannot be opened in the local cache",
			} {
				_, _, err := Open(t.Context(), name, Options{})
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %v, want %s", name, err, want)
				}
			}
		})
	}
	if n := len(h.Log.Requests()); n != 0 {
		t.Errorf("%d requests although the Hub is offline", n)
	}
}

func TestATokenInClearIsWarnedOf(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"https://huggingface.co": false, "http://mirror.example": true, "http://127.0.0.1:80": false,
		"http://10.0.0.1/hub": false, "http://203.0.113.7": true,
	} {
		clearHub(t)
		t.Setenv("HF_ENDPOINT", endpoint)
		h, err := newHub(repository{id: "o/m"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if h.inClear() != want {
			t.Errorf("%s: %v, want %v", endpoint, !want, want)
		}
	}
}
