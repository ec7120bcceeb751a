package stores

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// program finds an installed server in the user's cache. The tests that start one are named
// TestServed…, so that .ci/run runs them once and not in each of its stages.
func program(t TB, name string) string {
	t.Helper()
	if os.Getenv("DEQUANTFS_SERVERS") == "none" {
		t.Fatalf("tests that start servers have names that begin with TestServed")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("%v", err)
	}
	file := filepath.Join(cache, "dequantfs", "bin", name)
	if _, err := os.Stat(file); err != nil {
		if slices.Contains(strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ","), "stores") {
			t.Fatalf("%v: .ci/run install installs it", err)
		}
		t.Skipf("%v: .ci/run install installs it", err)
	}
	return file
}

// patience is for servers that start on a busy machine.
const patience = time.Minute

// start starts a server on a free port, and waits until it answers. The command for a port is made
// anew if another process took that port first.
func start(t TB, command func(port int) *exec.Cmd) (url string) {
	t.Helper()
	var out *output
	for range 3 {
		port, err := freePort()
		if err != nil {
			t.Fatalf("%v", err)
		}
		c := command(port)
		out = &output{}
		c.Stdout, c.Stderr = out, out
		ended, err := run(c)
		if err != nil {
			t.Fatalf("%s: %v", c.Path, err)
		}
		stop := func() {
			_ = c.Process.Kill()
			<-ended
		}
		url = fmt.Sprintf("http://127.0.0.1:%d", port)
		if answers(url, ended) {
			t.Cleanup(stop)
			return url
		}
		stop()
	}
	t.Fatalf("the server does not answer; its output:\n%s", out)
	return ""
}

// run starts a process that ends with this one, whatever happens. The kernel ends it with the
// thread that started it, so that thread waits for it.
func run(c *exec.Cmd) (ended chan struct{}, err error) {
	ended = make(chan struct{})
	started := make(chan error)
	endWithParent(c)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
	}()
	return ended, <-started
}

// answers waits for any HTTP answer.
func answers(url string, ended <-chan struct{}) bool {
	client := &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if resp, err := client.Get(url); err == nil {
			resp.Body.Close()
			select {
			case <-ended: // this answer came from another process
				return false
			case <-time.After(10 * time.Millisecond):
				return true
			}
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// freePort gives a port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// output keeps what a server prints, in case that it does not start.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 1<<20 {
		o.b.Reset()
	}
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
