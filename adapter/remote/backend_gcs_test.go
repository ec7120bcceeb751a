package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// bucket is a backend of a server that answers as the function does.
func bucket(t *testing.T, answer http.HandlerFunc) backend {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(s.URL, "http://"))
	b, err := openGCS(t.Context(), address{scheme: "gs", rest: "models/org/m/"},
		newClient(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gcsPages answers a listing with fixed pages.
func gcsPages(list ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := 0
		_, _ = fmt.Sscan(r.URL.Query().Get("pageToken"), &n)
		next := ""
		if n+1 < len(list) {
			next = fmt.Sprintf(`, "nextPageToken": "%d"`, n+1)
		}
		fmt.Fprintf(w, `{"kind": "storage#objects", %s%s}`, list[n], next)
	}
}

func TestGCSListsPagesAndFolders(t *testing.T) {
	b := bucket(t, gcsPages(
		`"prefixes": ["org/m/sub/"], "items": [
			{"name": "org/m/", "size": "0", "generation": "1"},
			{"name": "org/m/a", "size": "70368744177663", "generation": "1700000000000000"}]`,
		`"items": [{"name": "org/m/z", "size": "2", "generation": "3", "contentEncoding": "gzip"}]`))
	got, err := b.list(t.Context(), ".", 100)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, o := range got {
		text = append(text, fmt.Sprint(o.name, " ", o.dir, " ", o.size, " ", o.version, " ",
			o.refused != nil))
	}
	want := "sub true 0  false, a false 70368744177663 1700000000000000 false, z false 2 3 true"
	if s := strings.Join(text, ", "); s != want {
		t.Errorf("listing %s; want %s", s, want)
	}
	if got, err := b.list(t.Context(), ".", 1); err != nil || len(got) != 1 {
		t.Errorf("at most one: %v, %v", got, err)
	}
}

func TestGCSRefusesListingsThatCannotBeRight(t *testing.T) {
	for name, page := range map[string]string{
		"a name from elsewhere": `"items": [{"name": "org/b", "size": "1", "generation": "1"}]`,
		"no generation":         `"items": [{"name": "org/m/b", "size": "1"}]`,
		"no size":               `"items": [{"name": "org/m/b", "generation": "1"}]`,
		"a negative size":       `"items": [{"name": "org/m/b", "size": "-1", "generation": "1"}]`,
		"no JSON":               `"items": `,
	} {
		if got, err := bucket(t, gcsPages(page)).list(t.Context(), ".", 100); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestGCSPinsTheGeneration(t *testing.T) {
	o := &object{name: "a b%2F?", size: 10, version: "7"}
	answered := "7"
	b := bucket(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/storage/v1/b/models/o/org%2Fm%2Fa%20b%252F%3F" ||
			r.URL.Query().Get("generation") != "7" || r.Header.Get("Range") != "bytes=2-5" {
			t.Errorf("asked for %s, %s", r.URL, r.Header.Get("Range"))
		}
		w.Header().Set("X-Goog-Generation", answered)
		w.WriteHeader(http.StatusPartialContent)
	})
	r, err := b.get(t.Context(), o, 2, 4)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	answered = "8"
	if _, err := b.get(t.Context(), o, 2, 4); !errors.Is(err, source.ErrChanged) {
		t.Errorf("another generation: %v", err)
	}
	answered = ""
	if _, err := b.get(t.Context(), o, 2, 4); !errors.Is(err, errAnswer) {
		t.Errorf("no generation: %v", err)
	}
}

// Both object stores are asked again for a page of a listing.
func TestAListingIsAskedForAgain(t *testing.T) {
	asked := 0
	answer := func(page string) http.HandlerFunc {
		asked = 0
		return func(w http.ResponseWriter, _ *http.Request) {
			switch asked++; asked {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				panic(http.ErrAbortHandler) // closes the connection
			case 3:
				w.Header().Set("Content-Length", fmt.Sprint(len(page)))
				fmt.Fprint(w, page[:len(page)/2])
			default:
				fmt.Fprint(w, page)
			}
		}
	}
	b := bucket(t, answer(`{"kind": "storage#objects", "items": [{"name": "org/m/a", "size": "1", "generation": "1"}]}`))
	if got, err := b.list(t.Context(), ".", 9); err != nil || len(got) != 1 {
		t.Errorf("Google: %v, %v", got, err)
	}
	s := httptest.NewServer(answer("<EnumerationResults><Blobs>" + blob("org/m/a", "1", "0x1", "") +
		"</Blobs></EnumerationResults>"))
	defer s.Close()
	noAzure(t)
	t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", s.URL)
	z, err := openAzure(t.Context(), address{scheme: "az", rest: "acc/models/org/m"},
		newClient(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := z.list(t.Context(), ".", 9); err != nil || len(got) != 1 {
		t.Errorf("Azure: %v, %v", got, err)
	}
}

func TestGCSSaysWhatToDoAboutABucket(t *testing.T) {
	for status, want := range map[int]string{
		404: "there is no bucket models", 403: "gcloud auth application-default login",
		401: "GOOGLE_APPLICATION_CREDENTIALS",
	} {
		b := bucket(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		_, err := b.list(t.Context(), ".", 100)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, source.ErrChanged) {
			t.Errorf("%d: %v; want %q", status, err, want)
		}
	}
}

func TestCredentialsOfGoogleThatCannotBeReadAreNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.json")
	t.Setenv("STORAGE_EMULATOR_HOST", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	for _, text := range []string{"", `{"type": "service_account", "private_key": "secret"`,
		`{"type": "x"}`} {
		if text != "" {
			write(t, file, text)
		}
		_, err := openGCS(t.Context(), address{scheme: "gs", rest: "b/x"}, newClient(Options{}))
		if err == nil || !strings.Contains(err.Error(), "GOOGLE_APPLICATION_CREDENTIALS") ||
			strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "environment") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestGCSUsesTheCredentialsOfAUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user.json")
	write(t, file, `{"type": "authorized_user", "client_id": "i", "client_secret": "s",
		"refresh_token": "r"}`)
	t.Setenv("STORAGE_EMULATOR_HOST", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	b, err := openGCS(t.Context(), address{scheme: "gs", rest: "b/x"}, newClient(Options{}))
	if err != nil || b.public() {
		t.Fatalf("%v, %v", b, err)
	}
}

func TestAnObjectOfABucketIsNamedByBucketAndFolder(t *testing.T) {
	for rest, want := range map[string][2]string{
		"b": {"b", ""}, "b/": {"b", ""}, "b/x": {"b", "x/"}, "b/x/y/": {"b", "x/y/"},
	} {
		bucket, prefix, err := bucketOf(address{scheme: "gs", rest: rest})
		if err != nil || [2]string{bucket, prefix} != want {
			t.Errorf("%s: %s %s %v", rest, bucket, prefix, err)
		}
	}
	if _, _, err := bucketOf(address{scheme: "gs", rest: "/x"}); err == nil {
		t.Error("no bucket: no error")
	}
}
