package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs/mounts"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/stores"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// place is a checkpoint in a store: its SOURCE, and the environment that a client needs.
type place struct {
	source string
	env    []string
}

// storeKinds put a folder into a store. The function at gives the store as it is seen through a
// proxy.
var storeKinds = map[string]func(t *testing.T, folder string) (url string,
	at func(url string) place){
	"http": func(t *testing.T, folder string) (string, func(string) place) {
		return put(t, stores.HTTP(t, ""), folder)
	},
	"https": func(t *testing.T, folder string) (string, func(string) place) {
		return put(t, stores.HTTPS(t, ""), folder)
	},
	"s3": func(t *testing.T, folder string) (string, func(string) place) {
		return put(t, stores.S3(t, ""), folder)
	},
	"gcs": func(t *testing.T, folder string) (string, func(string) place) {
		return put(t, stores.GCS(t), folder)
	},
	"azure": func(t *testing.T, folder string) (string, func(string) place) {
		return put(t, stores.Azure(t), folder)
	},
	"hub": func(t *testing.T, folder string) (string, func(string) place) {
		h := stores.StartHub(t, stores.HubOptions{})
		h.Put(t, "org/model", folder)
		return h.URL, func(url string) place { return place{h.Source("org/model"), h.EnvAt(url)} }
	},
}

func put(t *testing.T, s *stores.Server, folder string) (string, func(string) place) {
	s.Put(t, "org/model", folder)
	return s.URL, func(url string) place {
		through := s.At(url)
		return place{through.Source("org/model"), through.Env()}
	}
}

// from gives a command the environment of a store.
func (p place) from(c *exec.Cmd) *exec.Cmd {
	c.Env = append(c.Env, p.env...)
	return c
}

// tree reads all files below a folder, and their modes.
func tree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		files[rel], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sameTree compares two trees.
func sameTree(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for name, data := range want {
		if !bytes.Equal(got[name], data) {
			t.Errorf("%s differs: %d bytes, want %d", name, len(got[name]), len(data))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

func golden4bit(t *testing.T, dir string) string {
	t.Helper()
	model := filepath.Join(dir, "ct_int4")
	from := filepath.Join("..", "..", "testdata", "golden", "formats", "ct_int4")
	if err := os.CopyFS(model, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return model
}

// A mount of each store has the files of the local mount, in all layouts.
func TestServedAMountOverANetworkEqualsTheLocalOne(t *testing.T) {
	requireFUSE(t)
	for kind, start := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			s := newSession(t)
			for _, model := range []string{s.source, golden4bit(t, s.dir)} {
				s.run("mount", model, s.mnt)
				want := tree(t, s.mnt)
				s.run("umount", s.mnt)
				if len(want) < 10 {
					t.Fatalf("the local mount has %d files", len(want))
				}
				url, at := start(t, model)
				p := at(url)
				s.output(p.from(s.command("mount", p.source, s.mnt)))
				sameTree(t, tree(t, s.mnt), want)
				m := s.status()
				if m.Stats.Network == nil || m.Stats.Network.Requests == 0 {
					t.Errorf("status: %+v", m.Stats.Network)
				}
				s.run("umount", s.mnt)
			}
		})
	}
}

// throughProxy mounts a checkpoint from a file server behind a proxy.
func throughProxy(t *testing.T, s *session, args ...string) (*faultproxy.Proxy, *stores.Server) {
	t.Helper()
	server := stores.HTTP(t, "")
	server.Put(t, "m", s.source)
	proxy := faultproxy.New(t, server.URL, faultproxy.Plan{})
	s.run(append([]string{"mount", server.At(proxy.URL).Source("m"), s.mnt}, args...)...)
	return proxy, server
}

// aShard is a shard of the mount.
func (s *session) aShard() string {
	s.t.Helper()
	for _, f := range s.files() {
		if strings.HasSuffix(f, ".safetensors") {
			return f
		}
	}
	s.t.Fatal("the mount has no shard")
	return ""
}

// hanging starts a program that reads a file until it gets an error, and says what it got.
func (s *session) hanging(name string) *exec.Cmd {
	c := s.as(exec.Command("cat", name))
	c.Stdout = io.Discard
	c.Stderr = new(bytes.Buffer)
	return c
}

// While the server does not answer, a mount can be unmounted in each way, and at once. Its reader
// gets an error.
func TestAMountOfASilentServerIsUnmounted(t *testing.T) {
	requireFUSE(t)
	for name, unmount := range map[string]func(s *session, pid int) error{
		"SIGTERM": func(s *session, pid int) error { return syscall.Kill(pid, syscall.SIGTERM) },
		"lazy": func(s *session, _ int) error {
			return s.command("umount", "--lazy", s.mnt).Run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSession(t)
			proxy, _ := throughProxy(t, s, "--layout", "hf", "--drain", "1s")
			pid := s.status().PID
			proxy.Set(faultproxy.Plan{Script: faultproxy.Always(faultproxy.Hang)})
			reader := s.hanging(s.aShard())
			if err := reader.Start(); err != nil {
				t.Fatal(err)
			}
			patiently(t, "the server is asked", func() bool { return proxy.Faults() > 0 })
			began := time.Now()
			if err := unmount(s, pid); err != nil {
				t.Fatal(err)
			}
			patiently(t, "the mount is gone", func() bool {
				_, found, _ := mounts.Top(s.mnt)
				return !found
			})
			t.Logf("the mount is gone after %v", time.Since(began))
			if name == "lazy" { // its files are served until they are closed
				if err := reader.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			err := reader.Wait()
			t.Logf("the reader ended after %v: %s", time.Since(began), reader.Stderr)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || name != "lazy" && exit.ExitCode() != 1 {
				t.Errorf("the reader ended with %v", err)
			}
			patiently(t, "the process has ended", func() bool { return ended(pid) })
			t.Logf("the process ended after %v", time.Since(began))
		})
	}
}

// patiently waits for a condition.
func patiently(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// An idle mount of a silent server is unmounted without --lazy.
func TestAnIdleMountOfASilentServerIsUnmounted(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	proxy, _ := throughProxy(t, s, "--layout", "hf")
	proxy.Set(faultproxy.Plan{Script: faultproxy.Always(faultproxy.Hang)})
	reader := s.hanging(s.aShard())
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	patiently(t, "the server is asked", func() bool { return proxy.Faults() > 0 })
	if err := reader.Process.Kill(); err != nil { // the kernel's read-ahead goes on
		t.Fatal(err)
	}
	_ = reader.Wait() // it was killed
	began := time.Now()
	s.run("umount", s.mnt)
	t.Logf("unmounted after %v", time.Since(began))
}

// An object that was replaced while it is mounted gives ESTALE, and never bytes of the new one.
func TestAReplacedObjectIsStale(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	_, server := throughProxy(t, s, "--layout", "hf")
	want := map[string][]byte{}
	shards := 0
	for _, f := range s.files() {
		if strings.HasSuffix(f, ".safetensors") {
			shards++
		} else {
			want[f], _ = os.ReadFile(f)
		}
	}
	entries, err := os.ReadDir(s.source)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".safetensors") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.source, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for i := len(data) / 2; i < len(data); i++ {
			data[i] ^= 0x11
		}
		server.Write(t, "m/"+e.Name(), data)
	}
	stale := 0
	for _, f := range s.files() {
		data, err := os.ReadFile(f)
		if want[f] != nil {
			if err == nil && !bytes.Equal(data, want[f]) {
				t.Errorf("%s has changed", f)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s can be read", f)
		}
		if errors.Is(err, unix.ESTALE) {
			stale++
		}
	}
	if stale == 0 || stale != shards {
		t.Errorf("%d of %d files are stale", stale, shards)
	}
}

// A rank transfers hardly more of the source than it needs.
func TestARankTransfersWhatItNeeds(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	model := filepath.Join(s.dir, "large")
	if err := writeLarge(model); err != nil {
		t.Fatal(err)
	}
	s.source = model
	for rank, layout := range map[string]string{"0/8": "hf", "1/4": "native", "7/8": "native"} {
		throughProxy(t, s, "--layout", layout, "--ep", rank)
		opened := s.status().Stats.Network.Bytes
		for _, f := range s.files() {
			if _, err := os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
		}
		m := s.status()
		s.run("umount", s.mnt)
		need := neededBytes(t, s, layout, rank)
		got := m.Stats.Network.Bytes - opened
		t.Logf("%s %s: %d bytes transferred, %d needed: %.3f", layout, rank, got, need,
			float64(got)/float64(need))
		if float64(got) > 1.05*float64(need) {
			t.Errorf("%s %s: %d bytes transferred, %d needed", layout, rank, got, need)
		}
	}
}

// neededBytes adds up the source tensors that a view uses, and the side files.
func neededBytes(t *testing.T, s *session, layout, ep string) (n int64) {
	t.Helper()
	var l struct {
		Views []struct {
			Keys []accountedFate `json:"source_keys"`
		}
	}
	out := s.run("ls", "--json", "--layout", layout, "--ep", ep, s.source)
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	all, err := filepath.Glob(filepath.Join(s.source, "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		for key, size := range tensorSizes(t, name) {
			sizes[key] = size
		}
	}
	for _, k := range l.Views[0].Keys {
		if k.Fate != "dropped" {
			n += sizes[k.Key]
		}
	}
	return n
}

// A checkpoint of many shards is opened in a few round trips.
func TestServedManyShardsAreListedInAFewRoundTrips(t *testing.T) {
	s := newSession(t)
	const shards = 163
	model := filepath.Join(s.dir, "many")
	err := writeCheckpoint(model, "layers=40", "experts=8", fmt.Sprintf("shards=%d", shards))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"http", "s3", "hub"} {
		url, at := storeKinds[kind](t, model)
		gate := newRounds(t, url)
		proxy := httptest.NewServer(gate)
		defer proxy.Close()
		p := at(proxy.URL)
		if out := s.output(p.from(s.command("ls", "--summary", p.source))); out == "" {
			t.Error("nothing is listed")
		}
		requests, rounds := gate.count()
		t.Logf("%s: %d requests in %d rounds", kind, requests, rounds)
		if requests > 2*shards+20 || rounds > 16 {
			t.Errorf("%s: %d requests in %d rounds", kind, requests, rounds)
		}
	}
}

// rounds passes requests on in rounds: it holds them until no other one has come for a while.
type rounds struct {
	next http.Handler

	mu       sync.Mutex
	open     chan struct{} // closed when the round goes on; nil: none is waiting
	timer    *time.Timer
	requests int
	passed   int
}

// quiet is how long no request comes before a round goes on.
const quietTime = 50 * time.Millisecond

func newRounds(t *testing.T, to string) *rounds {
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return &rounds{next: httputil.NewSingleHostReverseProxy(u)}
}

// ServeHTTP holds a request until its round goes on.
func (r *rounds) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.requests++
	if r.open == nil {
		open := make(chan struct{})
		r.open = open
		r.timer = time.AfterFunc(quietTime, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.passed++
			r.open = nil
			close(open)
		})
	} else {
		r.timer.Reset(quietTime)
	}
	open := r.open
	r.mu.Unlock()
	<-open
	r.next.ServeHTTP(w, q)
}

func (r *rounds) count() (requests, passed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests, r.passed
}

// writeLarge writes a checkpoint with some megabytes in each of several files.
func writeLarge(dir string) error {
	return synth.DeepSeek(synth.Options{Hidden: 1024, ExpertIntermediate: 512,
		DenseIntermediate: 2048, Layers: 4, Experts: 8, Shards: 4}).Write(dir)
}

// headerOf reads the header of a shard.
func headerOf(t *testing.T, name string) *safetensors.Header {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	h, err := safetensors.ReadHeader(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// tensorSizes returns the bytes of each tensor of a shard.
func tensorSizes(t *testing.T, name string) map[string]int64 {
	t.Helper()
	h := headerOf(t, name)
	sizes := map[string]int64{}
	for _, x := range h.Tensors {
		sizes[x.Name] = x.End - x.Begin
	}
	return sizes
}

// Verify compares the files of a repository with the hashes that the Hub tells, and says which have
// none.
func TestServedVerifyComparesASourceWithItsPublisher(t *testing.T) {
	s := newSession(t)
	url, at := storeKinds["hub"](t, s.source)
	hub := at(url)
	out := s.output(hub.from(s.command("verify", "hf://org/model")))
	if !strings.Contains(out, ": 2 files, ") || !strings.Contains(out, "all as they should be") ||
		!strings.Contains(out, "no SHA-256 is published for config.json") {
		t.Error(out)
	}
	out = s.output(hub.from(s.command("verify", "--json", "hf://org/model")))
	var found sourceVerification
	if err := json.Unmarshal([]byte(out), &found); err != nil || found.Files != 2 ||
		len(found.Differences) != 0 || len(found.Unpublished) == 0 || found.Bytes == 0 {
		t.Errorf("%v: %s", err, out)
	}
	// A store that tells no hashes.
	server := stores.HTTP(t, "")
	server.Put(t, "m", s.source)
	c := s.command("verify", server.Source("m"))
	text, err := c.CombinedOutput()
	if err == nil || c.ProcessState.ExitCode() != 1 ||
		!strings.Contains(string(text), "so nothing was compared") {
		t.Errorf("without hashes: %v: %s", err, text)
	}
	c = s.command("verify", "--layout", "hf", server.Source("m"))
	if err := c.Run(); c.ProcessState.ExitCode() != 2 {
		t.Errorf("with a view flag: %v", err)
	}
}

// The doctor says which version and credentials are used, and how the server answers, but no
// secret.
func TestServedTheDoctorExaminesASourceOverANetwork(t *testing.T) {
	s := newSession(t)
	for kind, wants := range map[string][2]string{
		"hub":   {"none are used", "@"},
		"s3":    {"keys from", "each by its ETag"},
		"http":  {"none are used", "each by its ETag"},
		"azure": {"the key of the account", "each by its ETag"},
	} {
		url, at := storeKinds[kind](t, s.source)
		p := at(url)
		out, _ := p.from(s.command("doctor", p.source)).Output() // other parts may be broken
		pinned := regexp.MustCompile(`pinned version .*` + wants[1]).FindString(string(out))
		if pinned == "" {
			t.Errorf("%s: the version is not pinned by %q in\n%s", kind, wants[1], out)
		}
		for _, want := range []string{wants[0], "an answer takes", "complete: "} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", kind, want, out)
			}
		}
		for _, variable := range p.env {
			name, value, _ := strings.Cut(variable, "=")
			secret := strings.Contains(name, "SECRET") || strings.Contains(name, "KEY")
			if secret && strings.Contains(string(out), value) {
				t.Errorf("%s: it says %s", kind, name)
			}
		}
	}
}

// Parts of an export may come from different places of the same source, and an export is continued
// from any of them.
func TestAnExportOverANetworkIsThatOfTheLocalSource(t *testing.T) {
	s := newSession(t)
	server := stores.HTTP(t, "")
	server.Put(t, "m", s.source)
	dir := filepath.Join(s.dir, "export")
	s.run("export", "--quiet", "--part", "0/2", server.Source("m"), dir)
	s.run("export", "--quiet", "--part", "1/2", s.source, dir)
	out := s.run("verify", "--source", server.Source("m"), dir)
	if !strings.Contains(out, "all as they should be") {
		t.Error(out)
	}
	out = s.run("export", "--json", server.Source("m"), dir) // nothing is left to do
	if !strings.Contains(out, `"skipped"`) {
		t.Error(out)
	}
	other := filepath.Join(s.dir, "other")
	if err := writeCheckpoint(other, "shards=2", "mtp=1", "experts=5"); err != nil {
		t.Fatal(err)
	}
	server.Put(t, "other", other)
	if err := s.command("export", "--quiet", server.Source("other"), dir).Run(); err == nil {
		t.Error("an export of another source is continued")
	}
}

func TestBenchMeasuresASourceOverANetwork(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	server := stores.HTTP(t, "")
	server.Put(t, "m", s.source)
	out := s.run("bench", "--rounds", "1", "--sample", "1MiB", "--only", "source,virtual,mount",
		"--json", "--scratch", s.dir, server.Source("m"))
	for _, name := range []string{"source-cold", "virtual-cold", "mount-cold"} {
		if !strings.Contains(out, `"`+name+`"`) {
			t.Errorf("no %s in %s", name, out)
		}
	}
}

// Files that are read with credentials are for the user who has them. The credentials are nowhere
// to be seen.
func TestServedCredentialsAreNotShown(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	h := stores.StartHub(t, stores.HubOptions{})
	h.Put(t, "org/model", s.source)
	h.Restrict("org/model", stores.Private)
	p := place{"hf://org/model", append(h.Env(), "HF_TOKEN="+stores.Token)}
	log := filepath.Join(s.dir, "log")
	c := p.from(s.command("mount", "--verbose", "--allow-other", "--log-file", log, p.source,
		s.mnt))
	said, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if want := "is read with credentials"; !strings.Contains(string(said), want) {
		t.Errorf("no %q in %s", want, said)
	}
	for _, f := range s.files() {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o400 {
			t.Errorf("%s has mode %o", f, info.Mode().Perm())
		}
		if _, err := os.ReadFile(f); err != nil {
			t.Error(err)
		}
	}
	pid := s.status().PID
	texts := map[string][]byte{
		"messages": said, "status": []byte(s.run("status", s.mnt)),
		"status --json": []byte(s.run("status", "--json")),
	}
	for _, name := range []string{log, fmt.Sprintf("/proc/%d/cmdline", pid),
		"/proc/self/mountinfo"} {
		if texts[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	s.run("umount", s.mnt)
	if m := string(texts["status"]); !strings.Contains(m, "hf://org/model@") {
		t.Errorf("status does not say which commit is mounted: %s", m)
	}
	c = p.from(s.command("ls", "hf://org/model@none"))
	texts["error"], _ = c.CombinedOutput()
	for name, text := range texts {
		for _, secret := range []string{stores.Token, "X-Amz-Signature", "Authorization"} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s has %s: %s", name, secret, text)
			}
		}
	}
}

// Files of a public source are for everyone.
func TestFilesOfAPublicSourceAreForEveryone(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	throughProxy(t, s, "--allow-other", "--layout", "hf")
	for _, f := range s.files() {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	s.run("umount", s.mnt)
}

// A line of fstab names a SOURCE over a network as a command does.
func TestFstabTakesASourceOverANetwork(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	server := stores.HTTP(t, "")
	server.Put(t, "m", s.source)
	helper := s.as(&exec.Cmd{Path: s.program, Args: []string{"mount.fuse.dequantfs",
		server.Source("m"), s.mnt, "-o", "rw,_netdev,layout=hf,remote_memory=64MiB," +
			"disk_cache=" + filepath.Join(s.dir, "cache") + ",disk_cache_size=1GiB"}})
	s.output(helper)
	m := s.status()
	if m.Source != server.Source("m") || m.Stats.Network.MemoryLimit != 64<<20 {
		t.Errorf("%s with %d bytes", m.Source, m.Stats.Network.MemoryLimit)
	}
	s.run("umount", s.mnt)
	if _, err := os.Stat(filepath.Join(s.dir, "cache")); err != nil {
		t.Error(err)
	}
}

// Only a SOURCE that names the network is asked for over it, whatever the environment says.
func TestOnlyASourceThatNamesTheNetworkUsesIt(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.NotFound(w, nil)
	}))
	defer server.Close()
	tempting := place{env: []string{
		"HF_ENDPOINT=" + server.URL, "HF_TOKEN=hf_x", "AWS_ENDPOINT_URL=" + server.URL,
		"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "STORAGE_EMULATOR_HOST=" + server.URL,
		"HTTP_PROXY=" + server.URL, "HTTPS_PROXY=" + server.URL, "http_proxy=" + server.URL,
	}}
	export := filepath.Join(s.dir, "export")
	for _, args := range [][]string{
		{"ls", s.source}, {"mount", "--disk-cache", filepath.Join(s.dir, "cache"), s.source, s.mnt},
		{"status"}, {"verify", s.mnt}, {"umount", s.mnt}, {"export", "--quiet", s.source, export},
		{"verify", export}, {"demo"},
	} {
		s.output(tempting.from(s.command(args...)))
	}
	for _, args := range [][]string{{"doctor", s.source}, {"ls", "org/model"}} {
		_ = tempting.from(s.command(args...)).Run() // it may fail
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests for local sources", n)
	}
	for _, name := range []string{"hf://org/model", "s3://bucket/model", "gs://bucket/model"} {
		before := asked.Load()
		if err := tempting.from(s.command("ls", name)).Run(); err == nil {
			t.Errorf("%s is listed", name)
		}
		if asked.Load() == before {
			t.Errorf("%s is not asked for", name)
		}
	}
}
