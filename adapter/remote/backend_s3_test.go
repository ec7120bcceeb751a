package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/source"
	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/size"
	"github.com/dequantfs/dequantfs/testdata/stores"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// noAWS hides the credentials and settings of this machine.
func noAWS(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// setenv sets variables given as name, value, name, value.
func setenv(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		t.Setenv(pairs[i], pairs[i+1])
	}
}

// useS3 makes a server the endpoint of S3, with its credentials.
func useS3(t *testing.T, s *stores.Server) {
	t.Helper()
	noAWS(t)
	stores.Setenv(t, s.Env())
}

// Both servers have the interface of S3, and differ in its details.
func TestServedS3(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) *stores.Server{
		"versitygw": func(t *testing.T) *stores.Server { return stores.S3(t, "") },
		"moto":      func(t *testing.T) *stores.Server { return stores.Moto(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			useS3(t, s)
			for _, c := range []struct {
				name string
				test func(t *testing.T, s *stores.Server)
			}{
				{"folders are whole names", foldersAreWholeNames}, // it lists the bucket
				{"a checkpoint is the local one", checkpointIsTheLocalOne},
				{"parts are read across", partsAreReadAcross},
				{"changes are not read", changesAreNotRead},
			} {
				t.Run(c.name, func(t *testing.T) { c.test(t, s) })
			}
		})
	}
}

// random is some bytes.
func random(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

func checkpointIsTheLocalOne(t *testing.T, s *stores.Server) {
	dir := t.TempDir()
	if err := synth.DeepSeek(synth.Options{Shards: 3}).Write(dir); err != nil {
		t.Fatal(err)
	}
	local, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	s.Put(t, "hub/deepseek", dir)
	store := openStore(t, s.Source("hub/deepseek"))
	c, err := adapter.OpenStore(t.Context(), store, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sameTensors(t, c, local)
	if len(c.SideFiles()) != len(local.SideFiles()) {
		t.Errorf("%d files, not %d", len(c.SideFiles()), len(local.SideFiles()))
	}
}

// amazon sends a signed request to a server, and returns the answer's header and body.
func amazon(t *testing.T, method, url string, body []byte) (http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	r = signer.SignV4(*r, stores.AccessKey, stores.SecretKey, "", stores.Region)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %v: %s", method, url, a.Status, err, text)
	}
	return a.Header, string(text)
}

// uploadParts makes an object of several parts.
func uploadParts(t *testing.T, s *stores.Server, key string, parts ...[]byte) {
	t.Helper()
	at := s.URL + "/" + stores.Bucket + "/" + key
	_, text := amazon(t, "POST", at+"?uploads=", nil)
	_, rest, _ := strings.Cut(text, "<UploadId>")
	id, _, _ := strings.Cut(rest, "</UploadId>")
	list := ""
	for i, p := range parts {
		h, _ := amazon(t, "PUT", fmt.Sprintf("%s?partNumber=%d&uploadId=%s", at, i+1, id), p)
		list += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1,
			h.Get("ETag"))
	}
	amazon(t, "POST", at+"?uploadId="+id,
		[]byte("<CompleteMultipartUpload>"+list+"</CompleteMultipartUpload>"))
}

func partsAreReadAcross(t *testing.T, s *stores.Server) {
	const part = 5 << 20
	whole := random(2*part+12345, 1)
	uploadParts(t, s, "m/x.bin", whole[:part], whole[part:2*part], whole[2*part:])
	f := openFile(t, openStore(t, s.Source("m")), "x.bin")
	if f.Size() != int64(len(whole)) || f.ModTime().IsZero() {
		t.Fatalf("%d bytes of %s", f.Size(), f.ModTime())
	}
	for _, r := range [][2]int{{0, 1}, {part - 3, 7}, {part, 1}, {2*part - 1, 2}, {0, len(whole)},
		{len(whole) - 1, 1}} {
		p := make([]byte, r[1])
		if n, err := f.ReadAt(t.Context(), p, int64(r[0])); n != len(p) || err != nil &&
			err != io.EOF {
			t.Errorf("%v: %d bytes, %v", r, n, err)
		}
		if !bytes.Equal(p, whole[r[0]:r[0]+r[1]]) {
			t.Errorf("%v: other bytes", r)
		}
	}
}

func changesAreNotRead(t *testing.T, s *stores.Server) {
	for _, name := range []string{"m/replaced", "m/longer", "m/removed", "m/same"} {
		s.Write(t, name, random(1000, 1))
	}
	store := openStore(t, s.Source("m"))
	var files []source.File
	for _, name := range []string{"replaced", "longer", "removed"} {
		files = append(files, openFile(t, store, name))
	}
	same := openFile(t, store, "same")
	s.Write(t, "m/replaced", random(1000, 2))
	s.Write(t, "m/longer", random(2000, 1))
	s.Remove(t, "m/removed")
	for _, f := range files {
		p := make([]byte, 10)
		if _, err := f.ReadAt(t.Context(), p, 0); !errors.Is(err, source.ErrChanged) {
			t.Errorf("%s: %v", f.Name(), err)
		}
		if !bytes.Equal(p, make([]byte, 10)) {
			t.Errorf("%s: bytes of another version", f.Name())
		}
	}
	if _, err := same.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
		t.Error(err)
	}
}

func TestServedAListingOfS3HasEveryObject(t *testing.T) {
	const count = 2100
	dir := t.TempDir()
	s := stores.S3(t, dir)
	folder := filepath.Join(dir, stores.Bucket, "many")
	if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		writeText(t, filepath.Join(folder, fmt.Sprintf("x-%05d.safetensors", i)), "x")
	}
	writeText(t, filepath.Join(folder, "sub", "y"), "y")
	useS3(t, s)
	store := openStore(t, s.Source("many"))
	got := namesIn(t, store, ".")
	if len(got) != count+1 || got[0] != "sub/" || got[count] != "x-02099.safetensors" {
		t.Errorf("%d names", len(got))
	}
	l, err := openStore(t, s.Source("many")).List(t.Context(), ".", 1500)
	if err != nil || len(l.Entries) != 1500 {
		t.Errorf("at most 1500: %d, %v", len(l.Entries), err)
	}
	if got := namesIn(t, store, "sub"); len(got) != 1 || got[0] != "y" {
		t.Errorf("a folder inside: %v", got)
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func foldersAreWholeNames(t *testing.T, s *stores.Server) {
	for _, key := range []string{"org/m/a b+c%20&=~é.txt", "org/m/config.json", "org/m/sub/deep/x",
		"org/m2/other", "org/model", "top"} {
		s.Write(t, key, []byte(key))
	}
	amazon(t, "PUT", s.URL+"/"+stores.Bucket+"/org/m/marked/", nil)
	for name, want := range map[string]string{
		"org/m":  "a b+c%20&=~é.txt config.json marked/ sub/",
		"org/m/": "a b+c%20&=~é.txt config.json marked/ sub/",
		"org":    "m/ m2/ model",
		"":       "org/ top",
	} {
		if got := strings.Join(namesIn(t, openStore(t, s.Source(name)), "."), " "); got != want {
			t.Errorf("%q: %s; want %s", name, got, want)
		}
	}
	store := openStore(t, s.Source("org/m"))
	for folder, want := range map[string]string{"sub": "deep/", "sub/deep": "x", "marked": ""} {
		if got := strings.Join(namesIn(t, store, folder), " "); got != want {
			t.Errorf("%q: %s; want %s", folder, got, want)
		}
	}
	const special = "a b+c%20&=~é.txt"
	p := make([]byte, len("org/m/"+special))
	if _, err := openFile(t, store, special).ReadAt(t.Context(), p,
		0); string(p) != "org/m/"+special {
		t.Errorf("%q, %v", p, err)
	}
	for _, name := range []string{"org/mod", "org/m/config.json/x", "absent"} {
		_, err := openStore(t, s.Source(name)).List(t.Context(), ".", 10)
		if !errors.Is(err, source.ErrMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := openStore(t, "s3://"+stores.Bucket).Name(); got != "s3://"+stores.Bucket+"/" {
		t.Errorf("the name of the bucket is %s", got)
	}
}

func TestServedRefusalsOfS3SayWhatToDo(t *testing.T) {
	s := stores.S3(t, "")
	s.Write(t, "m/x", []byte("x"))
	for name, c := range map[string]struct {
		source string
		env    []string
		want   string
	}{
		"another secret": {"", []string{"AWS_SECRET_ACCESS_KEY", "wrongsecret"},
			"the secret key from AWS_ACCESS_KEY_ID is not the right one"},
		"an unknown key": {"", []string{"AWS_ACCESS_KEY_ID", "AKIAUNKNOWN"},
			"the store does not know the key from AWS_ACCESS_KEY_ID"},
		"no bucket": {"s3://absent/m", nil, "there is no such bucket"},
		"no credentials": {"", []string{"AWS_ACCESS_KEY_ID", "", "AWS_SECRET_ACCESS_KEY", ""},
			"no credentials were found (AWS_ACCESS_KEY_ID is not set"},
		"unsigned by request": {"", []string{"AWS_NO_SIGN_REQUEST", "true"}, "AWS_NO_SIGN_REQUEST is set"},
		"nothing there": {"", []string{"AWS_ENDPOINT_URL", "http://127.0.0.1:1"},
			"nothing answers there"},
	} {
		t.Run(name, func(t *testing.T) {
			useS3(t, s)
			setenv(t, c.env...)
			if c.source == "" {
				c.source = s.Source("m")
			}
			_, err := openStore(t, c.source).List(t.Context(), ".", 10)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want %q", err, c.want)
			}
			for _, secret := range []string{stores.SecretKey, "wrongsecret", "Signature=",
				"AWS4-HMAC"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error has %q: %v", secret, err)
				}
			}
		})
	}
}

func TestServedAPublicBucketNeedsNoCredentials(t *testing.T) {
	s := stores.S3(t, "")
	s.Write(t, "m/x", []byte("public"))
	s.Publish(t)
	useS3(t, s)
	for _, c := range []struct {
		env  []string
		mode os.FileMode
	}{
		{nil, 0o400},
		{[]string{"AWS_NO_SIGN_REQUEST", "yes"}, 0o444},
		{[]string{"AWS_NO_SIGN_REQUEST", "", "AWS_ACCESS_KEY_ID", "", "AWS_SECRET_ACCESS_KEY", ""}, 0o444},
	} {
		setenv(t, c.env...)
		f := openFile(t, openStore(t, s.Source("m")), "x")
		p := make([]byte, 6)
		if _, err := f.ReadAt(t.Context(), p, 0); string(p) != "public" {
			t.Errorf("%v: %q, %v", c.env, p, err)
		}
		if f.Mode() != c.mode {
			t.Errorf("%v: mode %o, not %o", c.env, f.Mode(), c.mode)
		}
	}
}

// Objects that were not uploaded through the gateway have no ETag there.
func TestServedAnObjectWithoutETagIsComparedByItsTime(t *testing.T) {
	dir := t.TempDir()
	s := stores.S3(t, dir)
	path := filepath.Join(dir, stores.Bucket, "m", "x")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	writeText(t, path, "first")
	useS3(t, s)
	store := openStore(t, s.Source("m"))
	f := openFile(t, store, "x")
	if f.Unseen() == "" {
		t.Fatal("the test needs an object without an ETag")
	}
	p := make([]byte, 5)
	if _, err := f.ReadAt(t.Context(), p, 0); string(p) != "first" {
		t.Fatalf("%q, %v", p, err)
	}
	for _, later := range []time.Duration{-time.Hour, 2 * time.Second} {
		at := f.ModTime().Add(later)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		unread := openFile(t, store, "x") // what f has read is in memory
		if _, err := unread.ReadAt(t.Context(), p, 0); !errors.Is(err, source.ErrChanged) {
			t.Errorf("changed %s later: %v", later, err)
		}
	}
}

func TestServedAListingOfS3IsAskedForAgain(t *testing.T) {
	s := stores.S3(t, "")
	s.Write(t, "m/x", []byte("x"))
	p := faultproxy.New(t, s.URL, faultproxy.Plan{Script: faultproxy.Once(faultproxy.SlowDown,
		faultproxy.Closed, faultproxy.Truncated, faultproxy.Forbidden)})
	useS3(t, s.At(p.URL))
	if got := namesIn(t, openStore(t, s.Source("m")), "."); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if n := p.Faults(); n != 4 {
		t.Errorf("%d faults", n)
	}
}

func TestServedReadsOfS3OutliveFaults(t *testing.T) {
	const length = 1 << 20
	whole := random(length, 3)
	s := stores.S3(t, "")
	s.Write(t, "m/x", whole)
	kinds := slices.DeleteFunc(slices.Clone(faultproxy.All), func(k faultproxy.Kind) bool {
		return changes[k] || k == faultproxy.OtherNoETag // two in a row are another version
	})
	for _, seed := range size.Seeds(t) {
		p := faultproxy.New(t, s.URL, faultproxy.Plan{Seed: seed, Rate: 0.3, InARow: 2,
			Kinds: kinds,
			Match: func(r *http.Request) bool { return r.Header.Get("Range") != "" }})
		useS3(t, s.At(p.URL))
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 25 { // each store asks anew
			off := rng.IntN(length - 1)
			readThrough(t, s.Source("m"), whole, off, 1+rng.IntN(length-off))
		}
		if p.Faults() == 0 {
			t.Error("there were no faults")
		}
		t.Logf("seed %d: %d faults", seed, p.Faults())
	}
}

// readThrough reads a range of the object x by a store of its own.
func readThrough(t *testing.T, name string, whole []byte, off, n int) {
	t.Helper()
	store, _, err := Open(t.Context(), name, Options{Patience: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	part := make([]byte, n)
	got, err := openFile(t, store, "x").ReadAt(t.Context(), part, int64(off))
	switch {
	case got != n:
		t.Errorf("[%d, %d): %d bytes, %v", off, off+n, got, err)
	case !bytes.Equal(part, whole[off:off+n]):
		t.Errorf("[%d, %d): other bytes", off, off+n)
	}
}

// amazonAt sends what is for hosts of Amazon to a server.
type amazonAt struct {
	t    *testing.T
	host string // host and port of the server

	hosts []string // that were asked
}

func (a *amazonAt) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !strings.HasSuffix(r.URL.Host, ".amazonaws.com") {
		a.t.Errorf("asked for %s", r.URL)
	}
	if signed := r.Header.Get("Authorization"); strings.Contains(signed, "range") {
		a.t.Errorf("proxies may not change the range: %s", signed)
	}
	r = r.Clone(r.Context())
	a.hosts = append(a.hosts, r.URL.Host)
	r.Host = r.URL.Host // which is signed, and names the bucket
	r.URL.Scheme, r.URL.Host = "http", a.host
	return http.DefaultTransport.RoundTrip(r)
}

func TestServedABucketAtAmazonIsNamedByItsHost(t *testing.T) {
	s := stores.Moto(t)
	s.Write(t, "m/x y", []byte("text"))
	useS3(t, s)
	t.Setenv("AWS_ENDPOINT_URL", "")
	to := &amazonAt{t: t, host: strings.TrimPrefix(s.URL, "http://")}
	store, _, err := Open(t.Context(), "s3://"+stores.Bucket+"/m", Options{Transport: to})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := make([]byte, 4)
	if _, err := openFile(t, store, "x y").ReadAt(t.Context(), p, 0); string(p) != "text" {
		t.Errorf("%q, %v", p, err)
	}
	if slices.Contains(to.hosts, "s3.us-east-1.amazonaws.com") || len(to.hosts) != 2 {
		t.Errorf("asked at %v", to.hosts)
	}
}
