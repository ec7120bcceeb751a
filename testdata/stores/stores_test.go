package stores

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
)

// get asks for a URL and gives the answer with its body.
func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// folderOf writes a folder with a small and a large file, and a name that needs escaping.
func folderOf(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	rng := rand.NewChaCha8([32]byte{1})
	large := make([]byte, 3<<20)
	_, _ = rng.Read(large)
	files = map[string][]byte{"config.json": []byte("{}\n"), "model.safetensors": large,
		"sub/a b+c=é.txt": []byte("text")}
	for name, b := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

// checkObject reads an object whole and in a range, then overwrites it and asks for the old one.
func checkObject(t *testing.T, s *Server, c *http.Client, url func(name string) string, name string,
	want []byte) {
	t.Helper()
	resp, body := get(t, c, url(name))
	if resp.StatusCode != 200 || !bytes.Equal(body, want) {
		t.Fatalf("%s: %s, %d bytes", name, resp.Status, len(body))
	}
	tag := resp.Header.Get("ETag")
	resp, body = get(t, c, url(name), "Range", "bytes=1-2", "If-Match", tag)
	if resp.StatusCode != 206 || !bytes.Equal(body, want[1:3]) {
		t.Fatalf("range of %s: %s, %q", name, resp.Status, body)
	}
	s.Write(t, name, bytes.ToUpper(append([]byte("x"), want[1:]...)))
	resp, _ = get(t, c, url(name), "Range", "bytes=1-2", "If-Match", tag)
	if resp.StatusCode != 412 {
		t.Fatalf("%s was overwritten, but If-Match gives %s", name, resp.Status)
	}
	s.Remove(t, name)
	if resp, _ = get(t, c, url(name)); resp.StatusCode != 404 {
		t.Fatalf("%s was removed, but gives %s", name, resp.Status)
	}
}

func TestS3ServersServeWhatWasPut(t *testing.T) {
	for name, start := range map[string]func(TB) *Server{
		"versitygw": func(t TB) *Server { return S3(t, "") }, "moto": Moto} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			dir, files := folderOf(t)
			s.Put(t, "org/model", dir)
			for name, want := range files {
				url := func(name string) string { return s.Presigned(name, time.Minute) }
				checkObject(t, s, http.DefaultClient, url, "org/model/"+name, want)
			}
		})
	}
}

func TestPresignedURLsOfS3ExpireAndAreBoundToTheirHost(t *testing.T) {
	s := S3(t, "")
	s.Write(t, "a", []byte("abc"))
	p := faultproxy.New(t, s.URL, faultproxy.Plan{})
	url := s.At(p.URL).Presigned("a", time.Second)
	resp, body := get(t, http.DefaultClient, url)
	if resp.StatusCode != 200 || string(body) != "abc" {
		t.Fatalf("through the proxy: %s %s", resp.Status, body)
	}
	direct := strings.Replace(url, p.URL, s.URL, 1)
	if resp, _ := get(t, http.DefaultClient, direct); resp.StatusCode != 403 {
		t.Fatalf("signed for the proxy, but the server says %s", resp.Status)
	}
	time.Sleep(2100 * time.Millisecond)
	if resp, body := get(t, http.DefaultClient, url); resp.StatusCode != 403 {
		t.Fatalf("expired, but %s %s", resp.Status, body)
	}
}

func TestAPublishedBucketNeedsNoCredentials(t *testing.T) {
	s := S3(t, "")
	s.Write(t, "a", []byte("abc"))
	url := s.URL + "/" + Bucket + "/a"
	if resp, _ := get(t, http.DefaultClient, url); resp.StatusCode != 403 {
		t.Fatalf("not published, but %s", resp.Status)
	}
	s.Publish(t)
	if resp, body := get(t, http.DefaultClient, url); resp.StatusCode != 200 {
		t.Fatalf("published, but %s %s", resp.Status, body)
	}
}

func TestFileServersServeAFolder(t *testing.T) {
	a := NewAuthority(t)
	client := a.Client()
	for _, o := range []FileOptions{{}, {Authority: a}} {
		s := Files(t, "", o)
		dir, files := folderOf(t)
		s.Put(t, "model", dir)
		for name, want := range files {
			url := func(name string) string { return s.Source("") + awsEscape(name, "/") }
			checkObject(t, s, client, url, "model/"+name, want)
		}
	}
}

func TestHTTPSGoesThroughAProxy(t *testing.T) {
	a := NewAuthority(t)
	s := Files(t, "", FileOptions{Authority: a})
	s.Write(t, "m/a", []byte("abc"))
	p := faultproxy.NewTLS(t, s.URL, faultproxy.Plan{}, a.Certificate, a.Pool)
	client := a.Client()
	resp, body := get(t, client, s.At(p.URL).Source("m")+"a", "Range", "bytes=1-1")
	if resp.StatusCode != 206 || string(body) != "b" || p.Counts()[faultproxy.None] != 1 {
		t.Errorf("%s %s %v", resp.Status, body, p.Counts())
	}
	p.Set(faultproxy.Plan{Script: faultproxy.Always(faultproxy.Cut)})
	resp, err := client.Get(p.URL + "/m/a")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the connection was not cut")
	}
}

func TestS3GoesThroughHTTPS(t *testing.T) {
	s, a := S3(t, ""), NewAuthority(t)
	s.Write(t, "a", []byte("abc"))
	p := faultproxy.NewTLS(t, s.URL, faultproxy.Plan{}, a.Certificate, nil)
	s = s.At(p.URL).Trusting(a.File)
	if _, body := get(t, a.Client(), s.Presigned("a", time.Minute)); string(body) != "abc" {
		t.Errorf("%s", body)
	}
	Setenv(t, s.Env())
	for name, want := range map[string]string{"SSL_CERT_FILE": a.File, "AWS_ENDPOINT_URL": p.URL} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
}

func TestFileServersCanDoLess(t *testing.T) {
	dir, files := folderOf(t)
	s := Files(t, dir, FileOptions{NoETag: true, NoListing: true, NoRanges: true})
	resp, body := get(t, http.DefaultClient, s.URL+"/model.safetensors", "Range", "bytes=0-0")
	if resp.StatusCode != 200 || !bytes.Equal(body, files["model.safetensors"]) ||
		resp.Header.Get("ETag") != "" || resp.Header.Get("Last-Modified") == "" {
		t.Errorf("%s %v, %d bytes", resp.Status, resp.Header, len(body))
	}
	if resp, _ := get(t, http.DefaultClient, s.URL+"/"); resp.StatusCode != 404 {
		t.Errorf("a folder gives %s", resp.Status)
	}
}

func TestHTTPSNeedsItsAuthority(t *testing.T) {
	s := HTTPS(t, "")
	if _, err := http.Get(s.URL); err == nil {
		t.Error("a client that knows no authority of the test was content")
	}
	if !strings.HasPrefix(strings.Join(s.Env(), " "), "SSL_CERT_FILE=/") {
		t.Error(s.Env())
	}
}

// Ranges have no If-Match here: this server knows only generations.
func TestGCSServesWhatWasPut(t *testing.T) {
	s := GCS(t)
	p := faultproxy.New(t, s.URL, faultproxy.Plan{})
	dir, files := folderOf(t)
	s.Put(t, "org/model", dir)
	for name, want := range files {
		name = "org/model/" + name
		object := p.URL + "/storage/v1/b/" + Bucket + "/o/" + url.PathEscape(name)
		resp, body := get(t, http.DefaultClient, object+"?alt=media", "Range", "bytes=1-2")
		generation := resp.Header.Get("X-Goog-Generation")
		if resp.StatusCode != 206 || !bytes.Equal(body, want[1:3]) || generation == "" {
			t.Fatalf("%s: %s %q %v", name, resp.Status, body, resp.Header)
		}
		s.Write(t, name, append([]byte("x"), want[1:]...))
		resp, _ = get(t, http.DefaultClient, object+"?alt=media&generation="+generation)
		if resp.StatusCode != 404 {
			t.Errorf("%s was overwritten, but its generation gives %s", name, resp.Status)
		}
		s.Remove(t, name)
		if resp, _ = get(t, http.DefaultClient, object); resp.StatusCode != 404 {
			t.Errorf("%s was removed, but gives %s", name, resp.Status)
		}
	}
}

func TestAzureServesWhatWasPut(t *testing.T) {
	s := Azure(t)
	p := faultproxy.New(t, s.URL, faultproxy.Plan{})
	dir, files := folderOf(t)
	s.Put(t, "org/model", dir)
	sas := AzureSAS("rl", time.Now().Add(time.Hour))
	for name, want := range files {
		url := func(name string) string {
			return p.URL + awsEscape("/"+AzureAccount+"/"+Bucket+"/"+name, "/") + "?" + sas
		}
		checkObject(t, s, http.DefaultClient, url, "org/model/"+name, want)
	}
	url := p.URL + "/" + AzureAccount + "/" + Bucket + "?restype=container&comp=list&" +
		AzureSAS("rl", time.Now().Add(-time.Minute))
	if resp, body := get(t, http.DefaultClient, url); resp.StatusCode != 403 {
		t.Errorf("with an expired signature: %s %s", resp.Status, body)
	}
}

func TestServersEndWithTheTest(t *testing.T) {
	var s *Server
	t.Run("test", func(t *testing.T) { s = S3(t, "") })
	if _, err := http.Get(s.URL); err == nil {
		t.Error("the server answers after its test")
	}
}

const killedEnv = "DEQUANTFS_TEST_KILLED"

// TestServersEndWithAKilledTest runs itself once more, as the test that is killed.
func TestServersEndWithAKilledTest(t *testing.T) {
	if os.Getenv(killedEnv) != "" {
		fmt.Println("url", S3(t, "").URL)
		select {}
	}
	program(t, "versitygw")
	c := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	c.Env = append(os.Environ(), killedEnv+"=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var url string
	if _, err := fmt.Fscanf(out, "url %s\n", &url); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_ = c.Process.Kill()
	_ = c.Wait()
	for deadline := time.Now().Add(patience); err == nil; time.Sleep(10 * time.Millisecond) {
		if resp, err = http.Get(url); err == nil {
			resp.Body.Close()
		}
		if time.Now().After(deadline) {
			t.Fatal("the server outlives a killed test")
		}
	}
}
