package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	trial "github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// httpServer is a running serve command.
type httpServer struct {
	t      *testing.T
	url    string
	lines  []string // what it printed
	stderr *bytes.Buffer
	c      *exec.Cmd
	ended  bool
}

// serveHTTP starts the serve command at a free port and waits until it says what to type.
func (s *session) serveHTTP(t *testing.T, layouts int, args ...string) *httpServer {
	t.Helper()
	c := s.command(append([]string{"serve", "--listen", ":0"}, args...)...)
	return startHTTP(t, c, layouts)
}

func startHTTP(t *testing.T, c *exec.Cmd, layouts int) *httpServer {
	t.Helper()
	h := &httpServer{t: t, c: c, stderr: new(bytes.Buffer)}
	c.Stderr = h.stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !h.ended {
			h.end(syscall.SIGTERM)
		}
	})
	lines := bufio.NewScanner(out)
	for range layouts {
		if !lines.Scan() {
			h.ended = true
			c.Wait()
			t.Fatalf("it printed only %q\n%s", h.lines, h.stderr)
		}
		h.lines = append(h.lines, lines.Text())
	}
	h.url = regexp.MustCompile(`HF_ENDPOINT=(\S+)`).FindStringSubmatch(h.lines[0])[1]
	return h
}

// end sends a signal and requires exit status 0.
func (h *httpServer) end(signal os.Signal) {
	h.t.Helper()
	h.ended = true
	if err := errors.Join(h.c.Process.Signal(signal), h.c.Wait()); err != nil {
		h.t.Errorf("after %s: %v\n%s", signal, err, h.stderr)
	}
}

// ask requests an address with pairs of headers. Host is one of them.
func (h *httpServer) ask(at string, header ...string) (int, []byte) {
	h.t.Helper()
	r, err := http.NewRequest("GET", h.url+at, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.StatusCode, body
}

// A served layout has the files of an export, for curl and for dequantfs on another machine.
func TestServeGivesTheFilesOfAnExport(t *testing.T) {
	s := newSession(t)
	exported := filepath.Join(s.dir, "exported")
	s.run("export", "--quiet", s.source, exported, "--layout", "hf")
	want := tree(t, exported)
	delete(want, ".dequantfs/manifest.json")
	h := s.serveHTTP(t, 1, "--layout", "hf", "--name", "tiny", s.source)
	if !strings.Contains(h.lines[0], " hf download tiny/hf ") ||
		!strings.Contains(h.lines[0], `from_pretrained("tiny/hf")`) {
		t.Errorf("it says %q", h.lines[0])
	}
	for name, data := range want {
		if status, got := h.ask("/tiny/hf/resolve/main/" + name); status != 200 ||
			!bytes.Equal(got, data) {
			t.Errorf("%s: %d, %d bytes, want %d", name, status, len(got), len(data))
		}
	}
	chained := filepath.Join(s.dir, "chained")
	c := s.command("export", "--quiet", "hf://tiny/hf", chained, "--layout", "hf")
	c.Env = append(c.Env, "HF_ENDPOINT="+h.url, "HF_HUB_OFFLINE=0")
	s.output(c)
	got := tree(t, chained)
	delete(got, ".dequantfs/manifest.json")
	sameTree(t, got, want)
	h.end(os.Interrupt)
}

// A source over a network is served too.
func TestServedRemoteSourcesCanBeServed(t *testing.T) {
	s := newSession(t)
	store := stores.HTTP(t, "")
	store.Put(t, "org/model", s.source)
	h := s.serveHTTP(t, 1, "--layout", "hf", store.Source("org/model"))
	exported := filepath.Join(s.dir, "exported")
	s.run("export", "--quiet", s.source, exported, "--layout", "hf")
	want := tree(t, exported)
	delete(want, ".dequantfs/manifest.json")
	for name, data := range want {
		if status, got := h.ask("/my-model/hf/resolve/main/" + name); status != 200 ||
			!bytes.Equal(got, data) {
			t.Errorf("%s: %d, %d bytes, want %d", name, status, len(got), len(data))
		}
	}
}

// A web page must not read a checkpoint by a name that resolves to this machine.
func TestServeRefusesForeignHosts(t *testing.T) {
	s := newSession(t)
	h := s.serveHTTP(t, 1, "--layout", "hf", "--host", "node7", s.source)
	if !strings.HasPrefix(h.url, "http://127.0.0.1:") {
		t.Errorf("without a host it listens at %s", h.url)
	}
	for host, want := range map[string]int{
		"localhost:1": 200, "127.0.0.1": 200, "node7:80": 200, "NODE7": 200,
		"evil.example": 403, "node7.evil.example": 403,
	} {
		if status, _ := h.ask("/my-model/hf/resolve/main/config.json", "Host",
			host); status != want {
			t.Errorf("%q: status %d, want %d", host, status, want)
		}
	}
}

// Other machines can connect only with a token, which nothing prints.
func TestServeNeedsATokenForOthers(t *testing.T) {
	s := newSession(t)
	file := filepath.Join(s.dir, "token")
	const token = "a-token-of-this-test"
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.com:0"} {
		status, _, stderr := runHere("serve", s.source, "--listen", address)
		if status != 2 || !strings.Contains(stderr, "--token-file") {
			t.Errorf("%s: exit status %d, %s", address, status, stderr)
		}
	}
	c := s.command("serve", "--listen", "0.0.0.0:0", "--token-file", file, "--layout", "hf",
		s.source)
	h := startHTTP(t, c, 1)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://127.0.0.1:" + port
	const at = "/my-model/hf/resolve/main/config.json"
	if status, _ := h.ask(at); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	if status, _ := h.ask(at, "Authorization", "Bearer "+token); status != 200 {
		t.Errorf("with the token: %d", status)
	}
	h.end(syscall.SIGTERM)
	if text := strings.Join(h.lines, "\n") + h.stderr.String(); strings.Contains(text, token) {
		t.Errorf("it shows the token: %s", text)
	}
}

func TestTokenFilesAreChecked(t *testing.T) {
	s := newSession(t)
	for text, want := range map[string]string{
		"": "a token is one word", "short": "a token is one word",
		"two words of more than 16": "a token is one word", strings.Repeat("x", 2000): "a token",
	} {
		file := filepath.Join(s.dir, "token")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := runHere("serve", s.source, "--token-file", file)
		if status != 1 || !strings.Contains(stderr, want) || !strings.Contains(stderr, "openssl") {
			t.Errorf("%.20q: exit status %d, %s", text, status, stderr)
		}
	}
}

// readSlowly begins to read an answer that is larger than the buffers of the connection, so that
// the server has to wait for its client.
func (h *httpServer) readSlowly(at string) (begun chan bool, whole chan error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	c.(*net.TCPConn).SetReadBuffer(256 << 10)
	io.WriteString(c, "GET "+at+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	begun, whole = make(chan bool), make(chan error, 1)
	go func() {
		defer c.Close()
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			whole <- err
			return
		}
		begun <- true
		<-begun
		_, err = io.Copy(io.Discard, r.Body)
		whole <- err
	}()
	return begun, whole
}

// After a signal, answers under way are finished for a while. Then their clients get errors.
func TestServeFinishesAnswers(t *testing.T) {
	s := newSession(t)
	source := filepath.Join(s.dir, "large")
	if err := writeCheckpoint(source, "single", "experts=128"); err != nil {
		t.Fatal(err)
	}
	const at = "/large/hf/resolve/main/model.safetensors"
	for _, drain := range []string{"1m", "0s"} {
		h := s.serveHTTP(t, 1, "--layout", "hf", "--dtype", "f32", "--drain", drain, source)
		begun, whole := h.readSlowly(at)
		<-begun
		if err := h.c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- h.c.Wait() }()
		h.ended = true
		if drain == "0s" {
			if err := <-ended; err != nil {
				t.Errorf("%v\n%s", err, h.stderr)
			}
		} else {
			select {
			case err := <-ended:
				t.Errorf("it does not wait: %v", err)
			case <-time.After(trial.Patience()):
			}
		}
		begun <- true
		if err := <-whole; (err == nil) != (drain == "1m") {
			t.Errorf("drain %s: the client gets %v", drain, err)
		}
		if drain != "0s" {
			if err := <-ended; err != nil {
				t.Errorf("%v\n%s", err, h.stderr)
			}
		}
	}
}

// status shows servers with what they have served, and umount --all leaves them alone.
func TestStatusShowsServers(t *testing.T) {
	s := newSession(t)
	h := s.serveHTTP(t, 1, "--layout", "hf", s.source)
	_, body := h.ask("/my-model/hf/resolve/main/model-00001-of-000002.safetensors")
	s.run("umount", "--all")
	for _, args := range [][]string{{"status", "--json"}, {"status", h.url, "--json"}} {
		var facts statusJSON
		if err := json.Unmarshal([]byte(s.run(args...)), &facts); err != nil {
			t.Fatal(err)
		}
		if len(facts.Mounts) != 0 || len(facts.Servers) != 1 {
			t.Fatalf("%d mounts, %d servers", len(facts.Mounts), len(facts.Servers))
		}
		if m := facts.Servers[0]; m.State != stateAlive || m.Mountpoint != h.url ||
			m.Stats.Bytes < int64(len(body)) || m.Source != s.source {
			t.Errorf("%+v", m)
		}
	}
	if text := s.run("status"); !strings.Contains(text, h.url+" ") {
		t.Errorf("status prints\n%s", text)
	}
	h.end(syscall.SIGTERM)
	if text := s.run("status"); strings.Contains(text, "http://") {
		t.Errorf("after the end it prints\n%s", text)
	}
}
