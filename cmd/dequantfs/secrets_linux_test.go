package main

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// secretPlace is a store that is read with credentials.
type secretPlace struct {
	place
	proxy   *faultproxy.Proxy // of the large files
	secrets []string
}

// secretKinds put a folder into a store that wants credentials.
var secretKinds = map[string]func(t *testing.T, s *session) secretPlace{
	"hub":   secretHub,
	"s3":    secretS3,
	"azure": secretAzure,
	"https": secretWeb,
}

func secretHub(t *testing.T, s *session) secretPlace {
	storage := stores.S3(t, "")
	proxy := faultproxy.New(t, storage.URL, faultproxy.Plan{})
	h := stores.StartHub(t, stores.HubOptions{Storage: storage.At(proxy.URL)})
	h.Put(t, "org/model", s.source)
	h.Restrict("org/model", stores.Private)
	env := append(h.Env(), "HF_TOKEN="+stores.Token)
	return secretPlace{place{h.Source("org/model"), env}, proxy, []string{stores.Token,
		"X-Amz-Signature", "X-Amz-Credential"}}
}

func secretS3(t *testing.T, s *session) secretPlace {
	server := stores.S3(t, "")
	server.Put(t, "org/model", s.source)
	proxy := faultproxy.New(t, server.URL, faultproxy.Plan{})
	at := server.At(proxy.URL)
	return secretPlace{place{at.Source("org/model"), at.Env()}, proxy, []string{stores.SecretKey,
		"Signature="}}
}

func secretAzure(t *testing.T, s *session) secretPlace {
	server := stores.Azure(t)
	server.Put(t, "org/model", s.source)
	proxy := faultproxy.New(t, server.URL, faultproxy.Plan{})
	at := server.At(proxy.URL)
	return secretPlace{place{at.Source("org/model"), at.Env()}, proxy, []string{stores.AzureKey,
		"SharedKey devstore"}}
}

// secretWeb is a web server that asks for a password.
func secretWeb(t *testing.T, s *session) secretPlace {
	const word = "correct-horse-battery"
	files := stores.HTTP(t, "")
	files.Put(t, "m", s.source)
	to, err := url.Parse(files.URL)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != word {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	proxy := faultproxy.New(t, server.URL, faultproxy.Plan{})
	netrc := filepath.Join(t.TempDir(), "netrc")
	text := "machine 127.0.0.1 login me password " + word
	if err := os.WriteFile(netrc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := base64.StdEncoding.EncodeToString([]byte("me:" + word))
	return secretPlace{place{proxy.URL + "/m/", []string{"NETRC=" + netrc}}, proxy,
		[]string{word, pair}}
}

// No credential is in what a mount prints, logs and records, nor in what other users see of its
// process. That holds while everything fails, and when the process is made to dump its state.
func TestServedCredentialsAreNowhereToBeSeen(t *testing.T) {
	requireFUSE(t)
	for kind, start := range secretKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			s := newSession(t)
			p := start(t, s)
			var seen bytes.Buffer
			c := p.from(s.command("mount", "-v", "--allow-other", p.source, s.mnt))
			c.Stdout, c.Stderr = &seen, &seen
			if err := c.Run(); err != nil {
				t.Fatalf("%v: %s", err, &seen)
			}
			pid := s.status().PID
			p.checkModes(t, s.mnt)
			for _, fault := range []faultproxy.Kind{faultproxy.Closed, faultproxy.Expired} {
				p.proxy.Set(faultproxy.Plan{Script: faultproxy.Always(fault)})
				if readAll(s.mnt) == nil {
					t.Errorf("%s: every file can be read", fault)
				}
			}
			again := p.from(s.command("ls", p.source))
			again.Stdout, again.Stderr = &seen, &seen
			if again.Run() == nil && kind != "hub" {
				t.Error("a store that fails is listed")
			}
			seen.WriteString(s.run("status", "--json"))
			seen.WriteString(s.run("status"))
			for _, file := range []string{"cmdline", "comm", "mountinfo"} {
				data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
				if err != nil {
					t.Fatal(err)
				}
				seen.Write(data)
			}
			if err := syscall.Kill(pid, syscall.SIGABRT); err != nil {
				t.Fatal(err)
			}
			patiently(t, "the process has ended", func() bool { return ended(pid) })
			n := seen.Len()
			seen.Write(everyFile(t, filepath.Join(s.dir, "run")))
			if !bytes.Contains(seen.Bytes()[n:], []byte("goroutine ")) {
				t.Errorf("the log has no dump: %s", seen.Bytes()[n:])
			}
			for _, secret := range p.secrets {
				if at := strings.Index(seen.String(), secret); at >= 0 {
					t.Errorf("%q is seen: %s", secret, seen.String()[max(0, at-200):at+len(secret)])
				}
			}
		})
	}
}

// checkModes checks that files that are read with credentials are for their user alone.
func (p secretPlace) checkModes(t *testing.T, mnt string) {
	t.Helper()
	err := filepath.WalkDir(mnt, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// everyFile is what all files below a folder have, such as logs.
func everyFile(t *testing.T, dir string) (all []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// readAll reads the shards, and returns the first error.
func readAll(mnt string) error {
	shards, err := filepath.Glob(filepath.Join(mnt, "hf", "*.safetensors"))
	for _, name := range shards {
		if _, err = os.ReadFile(name); err != nil {
			return err
		}
	}
	return err
}
