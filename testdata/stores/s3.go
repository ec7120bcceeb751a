package stores

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credentials of both S3 servers.
const (
	AccessKey = "testkey"
	SecretKey = "testsecret"
	Region    = "us-east-1"
)

// s3 is a server with the interface of S3.
type s3 struct{ url string }

// S3 starts versitygw, a gateway over a folder: below it, buckets are folders and objects are
// files. An empty dir is a new folder.
func S3(t TB, dir string) *Server {
	t.Helper()
	exe := program(t, "versitygw")
	if dir == "" {
		dir = t.TempDir()
	}
	return newS3(t, func(port int) *exec.Cmd {
		c := exec.Command(exe, "--port", fmt.Sprint("127.0.0.1:", port), "--region", Region,
			"--quiet", "posix", dir)
		c.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
		return c
	})
}

// Moto starts moto, which keeps objects in memory. It does not check signatures.
func Moto(t TB) *Server {
	t.Helper()
	exe := program(t, "moto_server")
	return newS3(t, func(port int) *exec.Cmd {
		return exec.Command(exe, "-H", "127.0.0.1", "-p", strconv.Itoa(port))
	})
}

// newS3 starts a server and makes the bucket.
func newS3(t TB, command func(port int) *exec.Cmd) *Server {
	t.Helper()
	k := s3{start(t, command)}
	to := k.presign("PUT", k.url, "", nil, time.Minute)
	if err := request("PUT", to, nil, 0, nil); err != nil {
		t.Fatalf("make the bucket: %v", err)
	}
	return &Server{URL: k.url, kind: k}
}

func (k s3) env(url string) map[string]string {
	return map[string]string{"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": AccessKey,
		"AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_REGION": Region,
		"AWS_EC2_METADATA_DISABLED": "true"}
}

func (k s3) source(_, prefix string) string { return "s3://" + Bucket + "/" + prefix }

func (k s3) put(name string, content io.Reader, size int64) error {
	return request("PUT", k.presign("PUT", k.url, name, nil, time.Hour), content, size, nil)
}

func (k s3) remove(name string) error {
	return request("DELETE", k.presign("DELETE", k.url, name, nil, time.Minute), nil, 0, nil)
}

// Presigned gives a URL that reads an object until it expires. Only S3 and Moto have such.
func (s *Server) Presigned(name string, expires time.Duration) string {
	return s.kind.(s3).presign("GET", s.URL, name, nil, expires)
}

// Publish lets everyone read and list the bucket. Only S3 and Moto have this.
func (s *Server) Publish(t TB) {
	t.Helper()
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",`+
		`"Action":["s3:GetObject","s3:ListBucket"],`+
		`"Resource":["arn:aws:s3:::%[1]s","arn:aws:s3:::%[1]s/*"]}]}`, Bucket)
	k := s.kind.(s3)
	to := k.presign("PUT", k.url, "", url.Values{"policy": {""}}, time.Minute)
	if err := request("PUT", to, strings.NewReader(policy), int64(len(policy)), nil); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// presign signs a request by its URL, as AWS Signature Version 4 says. An empty name is the bucket.
func (k s3) presign(method, endpoint, name string, query url.Values, expires time.Duration) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		panic(err)
	}
	now := time.Now().UTC()
	day, at := now.Format("20060102"), now.Format("20060102T150405Z")
	scope := day + "/" + Region + "/s3/aws4_request"
	all := url.Values{"X-Amz-Algorithm": {"AWS4-HMAC-SHA256"}, "X-Amz-Date": {at},
		"X-Amz-Credential": {AccessKey + "/" + scope}, "X-Amz-SignedHeaders": {"host"},
		"X-Amz-Expires": {strconv.Itoa(int(expires.Seconds()))}}
	maps.Copy(all, query)
	path := awsEscape(strings.TrimSuffix("/"+Bucket+"/"+name, "/"), "/")
	canonical := strings.Join([]string{method, path, awsQuery(all), "host:" + u.Host, "", "host",
		"UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", at, scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + SecretKey)
	for _, part := range []string{day, Region, "s3", "aws4_request", text} {
		key = hmacSHA256(key, part)
	}
	all.Set("X-Amz-Signature", hex.EncodeToString(key))
	return endpoint + path + "?" + awsQuery(all)
}

// hmacSHA256 is one step of the derivation of a signing key.
func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// awsQuery is the query sorted and escaped as it is signed.
func awsQuery(values url.Values) string {
	var list []string
	for name, v := range values {
		list = append(list, awsEscape(name, "")+"="+awsEscape(v[0], ""))
	}
	slices.Sort(list)
	return strings.Join(list, "&")
}

// awsEscape escapes every byte but letters, digits, "-._~", and those in keep.
func awsEscape(s, keep string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
