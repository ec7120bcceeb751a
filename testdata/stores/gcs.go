package stores

import (
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
)

// gcs is a server with the JSON interface of Google Cloud Storage.
type gcs struct{ url string }

// GCS starts fake-gcs-server, which keeps objects in memory and checks no credentials.
func GCS(t TB) *Server {
	t.Helper()
	exe := program(t, "fake-gcs-server")
	k := gcs{start(t, func(port int) *exec.Cmd {
		host := fmt.Sprint("127.0.0.1:", port)
		return exec.Command(exe, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
			"-port", strconv.Itoa(port), "-public-host", host, "-external-url", "http://"+host)
	})}
	bucket := fmt.Sprintf(`{"name":%q}`, Bucket)
	err := request("POST", k.url+"/storage/v1/b?project=test", strings.NewReader(bucket),
		int64(len(bucket)), map[string]string{"Content-Type": "application/json"})
	if err != nil {
		t.Fatalf("make the bucket: %v", err)
	}
	return &Server{URL: k.url, kind: k}
}

// env names the scheme too, which some clients insist on.
func (gcs) env(url string) map[string]string {
	return map[string]string{"STORAGE_EMULATOR_HOST": url}
}

func (gcs) source(_, prefix string) string { return "gs://" + Bucket + "/" + prefix }

func (k gcs) put(name string, content io.Reader, size int64) error {
	to := k.url + "/upload/storage/v1/b/" + Bucket + "/o?" +
		url.Values{"uploadType": {"media"}, "name": {name}}.Encode()
	return request("POST", to, content, size,
		map[string]string{"Content-Type": "application/octet-stream"})
}

// remove escapes slashes: a name is one part of the path in this interface.
func (k gcs) remove(name string) error {
	return request("DELETE", k.url+"/storage/v1/b/"+Bucket+"/o/"+url.PathEscape(name), nil, 0, nil)
}
