package remote

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noAzure removes the credentials of the person who runs the tests.
func noAzure(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AZURE_") ||
			strings.HasPrefix(name, "IDENTITY_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("PATH", t.TempDir()) // no az
}

func TestAzureFindsTheAccountInTheEnvironment(t *testing.T) {
	const key = "c2VjcmV0" // "secret"
	for _, c := range []struct {
		name     string
		env      map[string]string
		endpoint string
		kind     string
	}{
		{"nothing", nil, "https://acc.blob.core.windows.net", "<nil>"},
		{"key", map[string]string{"AZURE_STORAGE_KEY": key},
			"https://acc.blob.core.windows.net", "remote.sharedKey"},
		{"key as adlfs names it", map[string]string{"AZURE_STORAGE_ACCOUNT_KEY": key},
			"https://acc.blob.core.windows.net", "remote.sharedKey"},
		{"key of another account", map[string]string{"AZURE_STORAGE_KEY": key,
			"AZURE_STORAGE_ACCOUNT": "other"}, "https://acc.blob.core.windows.net", "<nil>"},
		{"signature", map[string]string{"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=x"},
			"https://acc.blob.core.windows.net", "remote.sharedAccess"},
		{"connection string",
			map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;" +
				"AccountName=acc;AccountKey=" + key + "==;EndpointSuffix=core.chinacloudapi.cn"},
			"https://acc.blob.core.chinacloudapi.cn", "error"},
		{"emulator",
			map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acc;AccountKey=" +
				key +
				";BlobEndpoint=http://127.0.0.1:1/acc"}, "http://127.0.0.1:1/acc", "remote.sharedKey"},
		{"connection string of another account", map[string]string{
			"AZURE_STORAGE_CONNECTION_STRING": "AccountName=other;AccountKey=" + key},
			"https://acc.blob.core.windows.net", "<nil>"},
		{"service principal", map[string]string{"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "i",
			"AZURE_CLIENT_SECRET": "s"}, "https://acc.blob.core.windows.net", "*remote.bearer"},
		{"workload identity", map[string]string{"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "i",
			"AZURE_FEDERATED_TOKEN_FILE": "f"}, "https://acc.blob.core.windows.net", "*remote.bearer"},
		{"managed identity of an app", map[string]string{"IDENTITY_ENDPOINT": "http://127.0.0.1:1"},
			"https://acc.blob.core.windows.net", "*remote.bearer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			noAzure(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			a, err := azureSettings("acc")
			if err != nil || a.endpoint.String() != c.endpoint {
				t.Fatalf("endpoint %v, %v; want %s", a.endpoint, err, c.endpoint)
			}
			s, err := a.signer(newClient(Options{}))
			kind := fmt.Sprintf("%T", s)
			if err != nil {
				kind = "error"
				if strings.Contains(err.Error(), key) {
					t.Errorf("the error shows the key: %v", err)
				}
			}
			if kind != c.kind {
				t.Errorf("credentials %s, %v; want %s", kind, err, c.kind)
			}
		})
	}
}

func TestAzureRefusesAnAddressThatIsNotAURL(t *testing.T) {
	noAzure(t)
	for _, bad := range []string{"ftp://x/", "x", "://", "http://"} {
		t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", bad)
		if a, err := azureSettings("acc"); err == nil {
			t.Errorf("%s: endpoint %v", bad, a.endpoint)
		}
	}
}

// Without the range in the signature, another range could be asked for with it.
func TestSharedKeySignsHeadersAndQuery(t *testing.T) {
	r, _ := http.NewRequest("GET",
		"http://127.0.0.1:10000/acc/models?restype=container&comp=list&prefix=a%2Fb", nil)
	r.Header.Set("X-Ms-Version", azureVersion)
	r.Header.Set("X-Ms-Date", "Mon, 02 Nov 2026 10:00:00 GMT")
	r.Header.Set("Range", "bytes=0-9")
	if err := (sharedKey{"acc", []byte("secret")}).sign(r); err != nil {
		t.Fatal(err)
	}
	got, without := r.Header.Get("Authorization"), r.Clone(t.Context())
	if !strings.HasPrefix(got, "SharedKey acc:") {
		t.Fatalf("Authorization %q", got)
	}
	without.Header.Del("Range")
	if err := (sharedKey{"acc", []byte("secret")}).sign(without); err != nil {
		t.Fatal(err)
	}
	if without.Header.Get("Authorization") == got {
		t.Error("the range is not signed")
	}
}

// A token is asked for once, and again shortly before it ends.
func TestAzureTokensAreRenewed(t *testing.T) {
	noAzure(t)
	asked, lasts := 0, `"3600"`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if got := r.Form.Get("client_assertion"); got != fmt.Sprint("jwt", asked) {
			t.Errorf("assertion %q", got)
		}
		fmt.Fprintf(w, `{"access_token": "token%d", "expires_in": %s}`, asked, lasts)
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "jwt")
	for k, v := range map[string]string{"AZURE_AUTHORITY_HOST": s.URL + "/", "AZURE_TENANT_ID": "t",
		"AZURE_CLIENT_ID": "i", "AZURE_FEDERATED_TOKEN_FILE": file} {
		t.Setenv(k, v)
	}
	b := &bearer{fetch: azureTokens(newClient(Options{}))}
	for i, want := range []string{"token1", "token1", "token2"} {
		write(t, file, fmt.Sprintf("jwt%d\n", asked+1))
		if i == 2 {
			b.until = time.Now().Add(time.Minute)
			lasts = "3600"
		}
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		if err := b.sign(r); err != nil || r.Header.Get("Authorization") != "Bearer "+want {
			t.Errorf("%d: %q, %v; want %s", i, r.Header.Get("Authorization"), err, want)
		}
	}
	for _, bad := range []string{`0`, `""`, `"soon"`} {
		lasts, b.until = bad, time.Time{}
		write(t, file, fmt.Sprintf("jwt%d\n", asked+1))
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		if err := b.sign(r); err == nil {
			t.Errorf("a token that lasts %s was taken", bad)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheCommandAzGivesATokenIfNothingElseDoes(t *testing.T) {
	noAzure(t)
	dir := t.TempDir()
	az := filepath.Join(dir, "az")
	write(t, az, "#!/bin/sh\necho \"$*\" >&2\necho '{\"accessToken\": \"T\", \"expires_on\": "+
		fmt.Sprint(time.Now().Add(time.Hour).Unix())+"}'\n")
	if err := os.Chmod(az, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	token, lasts, err := azureTokens(newClient(Options{}))(t.Context())
	if err != nil || token != "T" || lasts < 59*time.Minute || lasts > time.Hour {
		t.Errorf("%q for %v, %v", token, lasts, err)
	}
	write(t, az, "#!/bin/sh\necho secret; exit 1\n")
	if _, _, err := azToken(t.Context(), az); err == nil ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// listing answers a listing of a container with fixed pages.
func listing(t *testing.T, status int, pages ...string) backend {
	t.Helper()
	noAzure(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		n := 0
		_, _ = fmt.Sscan(r.URL.Query().Get("marker"), &n)
		fmt.Fprintf(w, `<?xml version="1.0"?><EnumerationResults><Blobs>%s</Blobs>`, pages[n])
		if n+1 < len(pages) {
			fmt.Fprintf(w, "<NextMarker>%d</NextMarker>", n+1)
		}
		fmt.Fprint(w, "</EnumerationResults>")
	}))
	t.Cleanup(s.Close)
	t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", s.URL)
	b, err := openAzure(t.Context(), address{scheme: "az", rest: "acc/models/org/m"},
		newClient(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func blob(name, size, etag, more string) string {
	return "<Blob><Name>" + name + "</Name><Properties><Content-Length>" + size +
		"</Content-Length><Etag>" + etag + "</Etag>" + more + "</Properties></Blob>"
}

func TestAzureListsPagesAndFolders(t *testing.T) {
	b := listing(t, 200,
		blob("org/m/a", "1", "0x1", "<Last-Modified>Mon, 02 Nov 2026 10:00:00 GMT</Last-Modified>")+
			blob("org/m/", "0", "0x2", "")+blob("org/m/..", "3", "0x2", "")+
			"<BlobPrefix><Name>org/m/sub/</Name></BlobPrefix>",
		blob("org/m/dir", "0", "0x3", "<ResourceType>directory</ResourceType>")+
			blob("org/m/z", "2", `"0x4"`, "<Content-Encoding>gzip</Content-Encoding>")+
			blob("org/m/old", "2", `"0x4"`, "<AccessTier>Archive</AccessTier>"))
	got, err := b.list(t.Context(), ".", 100)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, o := range got {
		text = append(text, fmt.Sprintf("%s %t %d %s %t", o.name, o.dir, o.size, o.etag,
			o.refused != nil))
	}
	if s := strings.Join(text, " "); s != `sub true 0  false a false 1 "0x1" false `+
		`z false 2 "0x4" true old false 2 "0x4" true` {
		t.Errorf("listing %s", s)
	}
}

func TestAzureRefusesListingsThatCannotBeRight(t *testing.T) {
	for name, page := range map[string]string{
		"a name from elsewhere": blob("org/other/a", "1", "0x1", ""),
		"a negative size":       blob("org/m/a", "-1", "0x1", ""),
		"no ETag":               blob("org/m/a", "1", "", ""),
		"no number":             blob("org/m/a", "x", "0x1", ""),
		"no XML":                "<Blob>",
	} {
		if got, err := listing(t, 200, page).list(t.Context(), ".", 100); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAzureSaysWhatToDoAboutAContainer(t *testing.T) {
	for status, want := range map[int]string{
		404: "az login", 403: "no credentials were found", 409: "no credentials were found",
		401: "AZURE_STORAGE_KEY",
	} {
		_, err := listing(t, status, "").list(t.Context(), ".", 100)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v; want %q", status, err, want)
		}
	}
}

func TestCredentialsOfAzureThatAreRefusedAreNamed(t *testing.T) {
	for want, sign := range map[string]azureSigner{
		"AZURE_STORAGE_KEY": sharedKey{account: "acc"},
		"a shared access signature that has not expired": sharedAccess{"sig=x"},
		"the role Storage Blob Data Reader":              &bearer{},
		"az login":                                       nil,
	} {
		if got := (&azure{sign: sign}).way(); !strings.Contains(got, want) {
			t.Errorf("%T: %s", sign, got)
		}
	}
}

func TestTextThatIsNoConnectionStringIsRefused(t *testing.T) {
	noAzure(t)
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", "nonsense")
	_, err := azureSettings("acc")
	if err == nil || !strings.HasPrefix(err.Error(), "AZURE_STORAGE_CONNECTION_STRING is not") {
		t.Error(err)
	}
}
