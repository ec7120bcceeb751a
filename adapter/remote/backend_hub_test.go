package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/stores"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// useHub makes a Hub the one that sources are read from.
func useHub(t *testing.T, h *stores.Hub, token string) {
	t.Helper()
	clearHub(t)
	for _, e := range h.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	t.Setenv("HF_TOKEN", token)
}

// clearHub hides what the user has set for the Hub.
func clearHub(t *testing.T) {
	t.Helper()
	for _, name := range []string{"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
		"HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN",
		"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
}

func readRemote(t *testing.T, s source.Store, name string, off, n int64) ([]byte, error) {
	t.Helper()
	f, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, n)
	got, err := f.ReadAt(t.Context(), p, off)
	if err == io.EOF && int64(got) == n {
		err = nil
	}
	return p[:got], err
}

func TestServedTheHubGivesTheTensorsOfTheFolder(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{Page: 3})
	useHub(t, h, "")
	dir := quantizedFolder(t, synth.Options{Shards: 4})
	oid := h.Put(t, "org/model", dir)
	h.Tag("org/model", "v1", oid)
	h.Tag("org/model", "refs/pr/3", oid)
	h.Tag("org/model", "my/branch", oid)
	h.Write(t, "org/model", "config.json", []byte(`{"changed": true}`))
	for _, name := range []string{
		"hf://org/model@" + oid, "hf://org/model@v1", "hf://org/model@refs/pr/3", "hf://org/model@my%2Fbranch",
		"https://huggingface.co/org/model/tree/v1", "https://hf.co/org/model/tree/refs/pr/3",
		h.URL + "/org/model/tree/my%2Fbranch",
		"https://huggingface.co/org/model/blob/v1/model-00002-of-000004.safetensors",
		"https://huggingface.co/org/model/resolve/v1/model-00003-of-000004.safetensors?download=true",
		"hf://models/org/model@v1/model-00001-of-000004.safetensors",
	} {
		t.Run(name, func(t *testing.T) {
			remote, local := openBoth(t, name, dir)
			sameTensors(t, remote, local)
			if want := "hf://org/model@" + oid; remote.Folder() != want {
				t.Errorf("it is opened again as %s, want %s", remote.Folder(), want)
			}
		})
	}
}

func TestServedAFolderOfARepositoryIsASource(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	useHub(t, h, "")
	dir, top := quantizedFolder(t, synth.Options{Single: true}), t.TempDir()
	if err := os.Rename(dir, filepath.Join(top, "a b%")); err != nil {
		t.Fatal(err)
	}
	oid := h.Put(t, "org/model", top)
	for _, name := range []string{"hf://org/model/a b%", "https://huggingface.co/org/model/tree/main/a%20b%25"} {
		remote, local := openBoth(t, name, filepath.Join(top, "a b%"))
		sameTensors(t, remote, local)
		if want := "hf://org/model@" + oid + "/a b%"; remote.Folder() != want {
			t.Errorf("it is opened again as %s, want %s", remote.Folder(), want)
		}
	}
}

// Every request is counted: two for the listing, one for the address of each file and one for the
// header of each shard.
func TestServedALargeRepositoryIsOpenedByFewRequests(t *testing.T) {
	s3 := stores.S3(t, "")
	storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
	h := stores.StartHub(t, stores.HubOptions{Storage: s3.At(storage.URL)})
	useHub(t, h, "")
	const shards = 163
	dir := quantizedFolder(t, synth.Options{Shards: shards, Layers: 8})
	h.Put(t, "org/model", dir)
	storage.Log.Reset()
	remote, local := openBoth(t, "hf://org/model", dir)
	api := h.Log.Count(func(r faultproxy.Request) bool {
		return strings.HasPrefix(r.Path, "/api/")
	})
	resolved := map[string]int{}
	for _, r := range h.Log.Requests() {
		if strings.Contains(r.Path, "/resolve/") {
			resolved[r.Path]++
		}
	}
	headers := len(storage.Log.Requests())
	t.Logf("%d requests of the API, %d of files, %d of headers", api, len(resolved), headers)
	if api != 2 || headers != shards || len(remote.Shards()) != shards {
		t.Errorf("%d requests of the API and %d of headers, want 2 and %d", api, headers, shards)
	}
	sameTensors(t, remote, local)
	for _, r := range h.Log.Requests() {
		if strings.HasSuffix(r.Path, ".safetensors") && resolved[r.Path] != 1 {
			t.Errorf("%s: its address was asked for %d times", r.Path, resolved[r.Path])
		}
	}
}

func TestServedTheTokenStaysAtTheEndpoint(t *testing.T) {
	s3 := stores.S3(t, "")
	storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
	h := stores.StartHub(t, stores.HubOptions{Storage: s3.At(storage.URL)})
	dir := quantizedFolder(t, synth.Options{Single: true})
	h.Put(t, "org/old", dir)
	h.Restrict("org/old", stores.Private)
	h.Rename("org/old", "org/new")
	useHub(t, h, stores.Token)
	storage.Log.Reset()
	remote, local := openBoth(t, "hf://org/old", dir)
	sameTensors(t, remote, local)
	if len(storage.Log.Requests()) == 0 || len(h.Log.Requests()) == 0 {
		t.Fatal("nothing was asked for")
	}
	for _, r := range storage.Log.Requests() {
		if r.Authorized() || strings.Contains(fmt.Sprint(r), stores.Token) {
			t.Errorf("the storage got the token: %s", r.Path)
		}
	}
	for _, r := range h.Log.Requests() {
		if !r.Authorized() {
			t.Errorf("the Hub got no token for %s", r.Path)
		}
	}
}

func TestTokensAreFoundAsTheHubsClientFindsThem(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("  hf_of_"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("token")
	write("huggingface/token")
	path := write("other")
	for _, c := range []struct{ env, want string }{
		{"", ""},
		{"HF_TOKEN=hf_a\r\n", "hf_a"},
		{"HUGGING_FACE_HUB_TOKEN=hf_b", "hf_b"},
		{"HF_TOKEN=hf_a HUGGING_FACE_HUB_TOKEN=hf_b", "hf_a"},
		{"HF_HOME=" + dir, "hf_of_token"},
		{"XDG_CACHE_HOME=" + dir, "hf_of_huggingface/token"},
		{"HF_TOKEN_PATH=" + path + " HF_HOME=" + dir, "hf_of_other"},
		{"HOMEDIR=" + dir + " HF_HOME=$HOMEDIR", "hf_of_token"},
		{"HOME=" + filepath.Dir(dir) + " HF_HOME=~/" + filepath.Base(dir), "hf_of_token"},
		{"HF_TOKEN=hf_a HF_HUB_DISABLE_IMPLICIT_TOKEN=yes", ""},
		{"HF_TOKEN=hf_a HF_HUB_DISABLE_IMPLICIT_TOKEN=0", "hf_a"},
		{"HF_TOKEN_PATH=" + dir, ""},
	} {
		t.Run(c.env, func(t *testing.T) {
			clearHub(t)
			t.Setenv("XDG_CACHE_HOME", "")
			t.Setenv("HOME", t.TempDir())
			if !strings.Contains(c.env, "HF_HOME") {
				t.Setenv("HF_HOME", "")
			}
			for _, e := range strings.Split(c.env, " ") {
				if name, value, ok := strings.Cut(e, "="); ok {
					t.Setenv(name, value)
				}
			}
			if got, err := hubToken(); got.text != c.want || err != nil {
				t.Errorf("%q, %v, want %q", got.text, err, c.want)
			}
		})
	}
	t.Setenv("HF_TOKEN", "two words")
	if _, err := hubToken(); err == nil || strings.Contains(err.Error(), "words") {
		t.Errorf("a token with a space: %v", err)
	}
}

// The storage never sees an address that has expired.
func TestServedSignedAddressesAreRenewedBeforeTheyExpire(t *testing.T) {
	const expiry = 3 * time.Second
	s3 := stores.S3(t, "")
	storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
	h := stores.StartHub(t, stores.HubOptions{Storage: s3.At(storage.URL), Expiry: expiry})
	useHub(t, h, "")
	want := []byte("the content of the weights")
	h.Write(t, "org/model", "model.safetensors", want)
	s := openStore(t, "hf://org/model")
	for range 2 {
		for off := range int64(3) {
			got, err := readRemote(t, s, "model.safetensors", off, 5)
			if err != nil || !bytes.Equal(got, want[off:off+5]) {
				t.Fatalf("%q, %v", got, err)
			}
		}
		time.Sleep(expiry)
	}
	if n := h.Log.Count(isResolve); n != 2 {
		t.Errorf("%d addresses for two lives of one", n)
	}
	expired := func(r faultproxy.Request) bool { return r.Status == http.StatusForbidden }
	if n := storage.Log.Count(expired); n != 0 {
		t.Errorf("%d addresses had expired", n)
	}
}

func isResolve(r faultproxy.Request) bool { return strings.Contains(r.Path, "/resolve/") }

func TestServedRefusedAddressesAreRenewedOnce(t *testing.T) {
	s3 := stores.S3(t, "")
	for _, c := range []struct {
		name          string
		script        func(int, *http.Request) faultproxy.Kind
		reads         int
		fails         bool
		resolves, get int
	}{
		{"an address that has expired", faultproxy.Once(faultproxy.Forbidden), 3, false, 2, 4},
		{"a range that is always refused", faultproxy.Always(faultproxy.Forbidden), 3, true, 2, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
			h := stores.StartHub(t, stores.HubOptions{Storage: s3.At(storage.URL)})
			useHub(t, h, "")
			h.Write(t, "org/model", "model.safetensors", []byte("weights"))
			b, o := backendOf(t, openStore(t, "hf://org/model"), "model.safetensors")
			storage.Log.Reset()
			storage.Set(faultproxy.Plan{Script: c.script})
			for range c.reads {
				a, err := b.get(t.Context(), o, 2, 3)
				var d *delay
				switch {
				case c.fails && !asDelay(err, &d):
					t.Errorf("not an error that may pass: %v", err)
				case c.fails && strings.Contains(err.Error(), "X-Amz"):
					t.Errorf("it has the signed address: %v", err)
				case !c.fails && err != nil:
					t.Error(err)
				}
				if a != nil {
					_ = a.Body.Close()
				}
			}
			n, m := h.Log.Count(isResolve), len(storage.Log.Requests())
			if n != c.resolves || m != c.get {
				t.Errorf("%d addresses and %d ranges, want %d and %d", n, m, c.resolves, c.get)
			}
		})
	}
}

// warnings collects what a source warns of.
func warnings(text *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func TestServedARenamedRepositoryIsOpenedByItsNewName(t *testing.T) {
	h := stores.StartHub(t, stores.HubOptions{})
	useHub(t, h, "")
	oid := h.Write(t, "org/old", "config.json", []byte("{}"))
	h.Rename("org/old", "org/new")
	var text bytes.Buffer
	s, _, err := Open(t.Context(), "hf://org/old", Options{Logger: warnings(&text)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.Contains(text.String(), "hf://org/old has a new name: use hf://org/new") {
		t.Errorf("warned of %q", text.String())
	}
	if want := "hf://org/new@" + oid; s.Name() != want {
		t.Errorf("it is %s, want %s", s.Name(), want)
	}
	if got, err := readRemote(t, s, "config.json", 0, 2); string(got) != "{}" {
		t.Errorf("%q, %v", got, err)
	}
	if want := "hf download org/new --revision " + oid; s.Download().Command != want {
		t.Errorf("downloaded by %q, want %q", s.Download().Command, want)
	}
}

func backendOf(t *testing.T, s source.Store, name string) (backend, *object) {
	t.Helper()
	o, err := s.(*store).find(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*store).backend, o
}

func asDelay(err error, d **delay) bool { return errors.As(err, d) }

// The Hub and its storage fail in every way that is known. A read gives the right bytes or an
// error. Once the faults end, every read succeeds. The first answer of a shard has no fault, since
// nothing but its content, which is a header, tells that it is of another file.
func TestServedTheHubFailsInEveryWay(t *testing.T) {
	log.SetOutput(io.Discard) // net/http reports the bytes that follow a body
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	s3 := stores.S3(t, "")
	storage := faultproxy.New(t, s3.URL, faultproxy.Plan{})
	h := stores.StartHub(t, stores.HubOptions{Storage: s3.At(storage.URL)})
	useHub(t, h, "")
	front := faultproxy.New(t, h.URL, faultproxy.Plan{})
	t.Setenv("HF_ENDPOINT", front.URL)
	files := map[string][]byte{}
	for i, name := range []string{"a.safetensors", "b.safetensors", "tokenizer.json"} {
		files[name] = make([]byte, 1<<20+i)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(files[name])
		h.Write(t, "org/model", name, files[name])
	}
	for _, seed := range size.Seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			front.Set(faultproxy.Plan{})
			storage.Set(faultproxy.Plan{})
			before := front.Faults() + storage.Faults()
			faults := func() int { return front.Faults() + storage.Faults() - before }
			s, _, err := Open(t.Context(), "hf://org/model", Options{Patience: 400 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			readers := openAll(t, s, files)
			front.Set(faultproxy.Plan{Seed: seed, Rate: 0.3, InARow: 2})
			storage.Set(faultproxy.Plan{Seed: seed, Rate: 0.3, InARow: 2})
			var failed atomic.Int64
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(i)))
					for faults() < size.Count(300, 10_000)/3 && !t.Failed() {
						failed.Add(readers.read(t, r))
					}
				})
			}
			all.Wait()
			t.Logf("%d faults, %d reads failed", faults(), failed.Load())
			front.Set(faultproxy.Plan{})
			storage.Set(faultproxy.Plan{})
			for r := rand.New(rand.NewPCG(seed, 99)); !t.Failed() && r.IntN(50) > 0; {
				if readers.read(t, r) != 0 {
					t.Error("a read failed although there are no faults any more")
				}
			}
		})
	}
}

// openFiles are files that are read at random places.
type openFiles []struct {
	source.File
	content []byte
}

func openAll(t *testing.T, s source.Store, files map[string][]byte) (list openFiles) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := s.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if _, err := f.ReadAt(t.Context(), make([]byte, 8), 0); err != nil {
			t.Fatal(err)
		}
		list = append(list, struct {
			source.File
			content []byte
		}{f, files[name]})
	}
	return list
}

// read reads a random range. It returns 1 if the read fails, which is not a fault of the test.
func (l openFiles) read(t *testing.T, r *rand.Rand) int64 {
	f := l[r.IntN(len(l))]
	off := r.IntN(len(f.content))
	p := make([]byte, 1+r.IntN(min(len(f.content)-off, 200_000)))
	n, err := f.ReadAt(t.Context(), p, int64(off))
	if n > 0 && !bytes.Equal(p[:n], f.content[off:off+n]) {
		t.Errorf("%s: wrong bytes in [%d, %d)", f.Name(), off, off+n)
	}
	if err != nil && err != io.EOF {
		return 1
	}
	return 0
}
