package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// dirty are texts with secrets, of all kinds of stores. Each has the word SECRET in all places that
// must stay hidden, and the word kept in one that helps.
var dirty = []string{
	`Get "https://cdn.kept/file?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=SECRET%2F2026&X-Amz-Signature=SECRET": EOF`,
	`Get "https://bucket.kept/a/b?X-Goog-Signature=SECRET&x=1": connection reset by peer`,
	`Head "https://account.blob.kept/c/b?sv=2021&se=SECRET&sig=SECRET%3D": timeout`,
	`Get "https://cdn-lfs.kept/repos/a?Expires=1&Policy=SECRET&Signature=SECRET~&Key-Pair-Id=SECRET": EOF`,
	`Get "https://user:SECRET@kept/folder/": EOF`,
	`Get "https://SECRET@kept/folder/#SECRET": EOF`,
	`parse "http://user:SECRET@kept/%zz?a=SECRET": invalid URL escape`,
	`kept /path?token=SECRET&b=SECRET is not there`,
	`the request kept has Authorization: Bearer SECRETSECRET`,
	`Bearer SECRETSECRET is not valid, kept`,
	`Basic ab+U0VDUkVUSECRET== kept`,
	`kept: AWS4-HMAC-SHA256 Credential=SECRET/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=SECRET`,
	`SharedKey account:SECRETSECRET= kept`,
	`{"kept": 1, "access_token": "SECRET", "id_token":"SECRET"}`,
	`kept grant_type=x&refresh_token=SECRET&client_secret=SECRET`,
	`DefaultEndpointsProtocol=https;kept;AccountKey=SECRETSECRET==;x=1`,
	`hf_SECRETSECRETSECRET is not a valid token, kept`,
	`ya29.a0SECRET-x_y kept`,
	`AKIASECRETSECRET12 kept`,
	`eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiISECRET.SECRET-x kept`,
	`X-Auth-Token: SECRET SECRET` + "\nkept",
	`Set-Cookie: a=SECRET; Path=/` + "\nkept",
}

func TestTextsLoseTheirSecrets(t *testing.T) {
	for _, text := range dirty {
		got := scrub(text)
		if strings.Contains(got, "SECRET") || !strings.Contains(got, "kept") {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
		if again := scrub(got); again != got {
			t.Errorf("%s\nbecomes\n%s\nlater", got, again)
		}
	}
}

func TestOrdinaryTextsAreLeftAlone(t *testing.T) {
	for _, text := range []string{
		"the server answered 404 Not Found: NoSuchKey: The specified key does not exist.",
		"hf://org/name@main/model-00001-of-00163.safetensors: its ETag is \"a1\", and was \"b2\"",
		`Get "https://host.test:8443/a%20folder/model.safetensors": dial tcp 127.0.0.1:1: refused`,
		"the token is not valid: hf auth login",
		"the signature does not match: check the clock",
		"a token of the file ~/.netrc", "basic access", "policy of the bucket",
		"s3://bucket/prefix: what? no", "model.layers.0.weight: bytes 0-9 instead of 1-10",
	} {
		if got := scrub(text); got != text {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
	}
}

func TestKnownCredentialsAreRemovedInEveryForm(t *testing.T) {
	const secret = "correct horse/battery+staple"
	keepSecret(secret)
	keepSecret("short") // would remove ordinary words
	for _, text := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret),
		"Y29ycmVjdCBob3JzZS9iYXR0ZXJ5K3N0YXBsZQ=="} {
		if got := scrub("it is " + text + "!"); got != "it is [removed]!" {
			t.Errorf("%s becomes %s", text, got)
		}
	}
	if got := scrub("a short text"); got != "a short text" {
		t.Error(got)
	}
}

func TestNamesOfSourcesAreShownWithoutCredentials(t *testing.T) {
	for name, want := range map[string]string{
		"https://host.test/a/b/":              "https://host.test/a/b/",
		"https://host.test:8443/a@b/":         "https://host.test:8443/a@b/",
		"https://[::1]:80/a":                  "https://[::1]:80/a",
		"https://[::1]/a":                     "https://[::1]/a",
		"https://me:SECRET@host.test/a/":      "https://host.test/a/",
		"https://me:SE/CRET@host.test/a/":     "https://[removed]",
		"https://me:SE@CRET@host.test/a/":     "https://host.test/a/",
		"https://SECRET@host.test/a/":         "https://host.test/a/",
		"https://host.test/a/?sig=SECRET":     "https://host.test/a/",
		"https://host.test/a/#SECRET":         "https://host.test/a/",
		"az://acc/c/p?sv=1&sig=SECRET":        "az://acc/c/p",
		"s3://AKIASECRETSECRET12:SECRET@b/p":  "s3://b/p",
		"hf://org/name@main":                  "hf://org/name@main",
		"hf://hf_SECRETSECRET@org/name@main":  "hf://org/name@main",
		"hf://org/name@hf_SECRETSECRETSECRET": "hf://org/name@[removed]",
		"s3://bucket/with spaces/and\x1b[31m": "s3://bucket/with spaces/and [31m",
	} {
		if got := Shown(name); got != want {
			t.Errorf("%s is shown as %s, not %s", name, got, want)
		}
	}
}

// shows is every way in which an error comes into a log or onto a terminal.
func shows(err error) string {
	var all strings.Builder
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&all, "%v %+v %#v %q %s\n", e, e, e, e, e)
	}
	slog.New(slog.NewTextHandler(&all, nil)).Error("failed", "error", err)
	slog.New(slog.NewJSONHandler(&all, nil)).Error("failed", "error", err)
	text, _ := json.Marshal(map[string]any{"error": err.Error()})
	all.Write(text)
	func() {
		defer func() { fmt.Fprint(&all, recover()) }()
		panic(err)
	}()
	var u *url.Error
	if errors.As(err, &u) {
		fmt.Fprintf(&all, "%v %+v %#v\n", u, *u, u)
	}
	var n net.Error
	if errors.As(err, &n) {
		fmt.Fprintf(&all, "%v %#v\n", n, n)
	}
	var d *delay
	if errors.As(err, &d) {
		fmt.Fprintf(&all, "%v %v\n", d, d.err)
	}
	return all.String()
}

func TestErrorsLoseTheirSecrets(t *testing.T) {
	signed := "https://cdn.test/file?X-Amz-Signature=SECRET"
	inner := &url.Error{Op: "Get", URL: signed, Err: context.DeadlineExceeded}
	for _, err := range []error{
		inner,
		fmt.Errorf("model.safetensors: %w", inner),
		fmt.Errorf("%w: %w", errRedirect, inner),
		&url.Error{Op: "Get", URL: signed, Err: inner},
		&delay{inner, 0, true},
		fmt.Errorf("object: %w", &delay{inner, 0, true}),
		errors.Join(errors.New("one"), inner),
		fmt.Errorf("hidden behind other words%.0w", inner),
	} {
		got := clean(err)
		if text := shows(got); strings.Contains(text, "SECRET") {
			t.Errorf("%T shows %s", err, text)
		}
		if !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("%v is no longer a deadline", got)
		}
		if errors.Is(err, errRedirect) != errors.Is(got, errRedirect) {
			t.Errorf("%v lost what it was", got)
		}
		var d, have *delay
		if errors.As(err, &have) && (!errors.As(got, &d) || !d.busy) {
			t.Errorf("%v is no longer a delay", got)
		}
		var n net.Error
		if !errors.As(got, &n) || !n.Timeout() {
			t.Errorf("%v is no longer a timeout", got)
		}
	}
}

func TestErrorsWithoutSecretsAreLeftAlone(t *testing.T) {
	if clean(nil) != nil {
		t.Error("no error became one")
	}
	if err := fmt.Errorf("a: %w", io.ErrUnexpectedEOF); clean(err) != err {
		t.Error("an error without a secret was changed")
	}
}

func TestErrorsOfRequestsHaveNoSecret(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	c := newClient(Options{})
	defer c.close()
	for _, address := range []string{closed.URL + "/file?X-Amz-Signature=SECRET",
		strings.Replace(closed.URL, "http://", "http://user:SECRET@", 1),
		"http://missing.invalid/file?sig=SECRET"} {
		r := request(t, address)
		r.Header.Set("Authorization", "Bearer SECRETSECRET")
		_, err := c.do(r)
		if err == nil || strings.Contains(shows(err), "SECRET") {
			t.Errorf("do: %v", err)
		}
		if _, err = c.http.Do(r); strings.Contains(shows(clean(err)), "SECRET") {
			t.Errorf("http: %v", clean(err))
		}
	}
}

func TestExcerptsOfFailedAnswers(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"application/xml", `<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code>` +
			`<Message>The signature does not match.</Message><AWSAccessKeyId>SECRET</AWSAccessKeyId>` +
			`<StringToSign>SECRET</StringToSign></Error>`,
			"SignatureDoesNotMatch: The signature does not match."},
		{"application/xml", "\ufeff<?xml version=\"1.0\"?><Error>" +
			"<Code>AuthenticationFailed</Code><Message>No.\nRequestId:1</Message>" +
			"<AuthenticationErrorDetail>SECRET" +
			"</AuthenticationErrorDetail></Error>", "AuthenticationFailed: No."},
		{"application/json", `{"error":"Access to model a/b is restricted."}`,
			"Access to model a/b is restricted."},
		{"application/json", `{"error":{"code":404,"message":"No such object: b/o"}}`,
			"No such object: b/o"},
		{"application/json", `{"error":"invalid_grant","error_description":"Bad."}`, "Bad."},
		{"application/json", `{"error":1}`, ""},
		{"application/json", `{"error"`, ""},
		{"application/xml", `<Error`, ""},
		{"text/html; charset=utf-8", "<html><h1>404 Not Found</h1></html>", ""},
		{"", "<!DOCTYPE html><p>no", ""},
		{"text/plain", "not here\r\n\x1b[31m", "not here [31m"},
		{"text/plain", "see https://host/a?sig=SECRET", "see https://host/a"},
		{"text/plain", strings.Repeat("é", 400), strings.Repeat("é", 150) + " …"},
		{"text/plain", "", ""},
	} {
		a := &http.Response{Header: http.Header{"Content-Type": {c.kind}},
			Body: io.NopCloser(strings.NewReader(c.body))}
		if got := excerpt(a); got != c.want {
			t.Errorf("%s\ngives %q, not %q", c.body, got, c.want)
		}
	}
}

// leaky is a store whose errors have secrets.
type leaky struct{ err error }

func (leaky) name() string              { return "leaky://" }
func (leaky) public() bool              { return true }
func (leaky) download() source.Download { return source.Download{} }

func (l leaky) list(_ context.Context, folder string, _ int) ([]object, error) {
	if folder != "." {
		return nil, l.err
	}
	return []object{{name: "a", size: 10, version: "1"}, {name: "b", refused: l.err}}, nil
}

func (l leaky) get(context.Context, *object, int64, int64) (*http.Response, error) {
	return nil, l.err
}

// Whatever a backend returns, the source shows no secret.
func TestSourcesShowNoSecretOfTheirBackends(t *testing.T) {
	signed := &url.Error{Op: "Get", URL: "https://h.kept/x?sig=SECRET", Err: io.ErrUnexpectedEOF}
	all := []error{signed, fmt.Errorf("x: %w", signed), &delay{signed, 0, false}}
	for _, text := range dirty {
		all = append(all, errors.New(text), &errStatus{400, text})
	}
	o := Options{Tries: 1, Patience: time.Millisecond}
	for _, leak := range all {
		schemes["leaky"] = func(context.Context, address, *client) (backend, error) {
			return leaky{leak}, nil
		}
		s, _, err := Open(t.Context(), "leaky://x", o)
		if err != nil {
			t.Fatal(err)
		}
		_, listErr := s.List(t.Context(), "sub", 10)
		_, openErr := s.Open(t.Context(), "b")
		f, err := s.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		_, readErr := f.ReadAt(t.Context(), make([]byte, 5), 0)
		schemes["leaky"] = func(context.Context, address, *client) (backend, error) {
			return nil, leak
		}
		_, _, failErr := Open(t.Context(), "leaky://x", o)
		for from, err := range map[string]error{"List": listErr, "Open": openErr, "ReadAt": readErr,
			"the source": failErr} {
			if err == nil || strings.Contains(shows(err), "SECRET") {
				t.Errorf("%s: %v", from, err)
			}
		}
		_ = f.Close()
		_ = s.Close()
	}
	delete(schemes, "leaky")
}

// A name with a password or a signature is seen by all users, and would be a wrong name as well.
func TestNamesWithCredentialsAreRefusedAndNotShown(t *testing.T) {
	for name, want := range map[string]string{
		"hf://me:sesame@org/name":                  "set HF_TOKEN",
		"hf://sesame@org/name":                     "leave out the @ and what is before it",
		"hf://org/name@main?token=sesame":          "set HF_TOKEN",
		"s3://key:sesame@bucket/m":                 "set AWS_PROFILE",
		"s3://bucket/m?X-Amz-Signature=sesame":     "leave out the ? and what follows",
		"gs://me:sesame@bucket/m":                  "set GOOGLE_APPLICATION_CREDENTIALS",
		"az://acc/models/m?sv=2024&sig=sesame":     "set AZURE_STORAGE_SAS_TOKEN",
		"az://acc/models/x.safetensors?sig=sesame": "set AZURE_STORAGE_SAS_TOKEN",
		"az://acc:sesame@models/models/x":          "set AZURE_STORAGE_SAS_TOKEN",
		"hf://name@main":                           "not the name of a model: write hf://org/name[@revision]",
	} {
		_, _, err := Open(t.Context(), name, Options{})
		if text := fmt.Sprint(err); !strings.Contains(text, want) || strings.Contains(text, "sesame") {
			t.Errorf("%s: %s; want %s", name, text, want)
		}
	}
}
