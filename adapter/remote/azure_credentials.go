package remote

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// azureWays says how credentials of Azure are given.
const azureWays = "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or " +
	"AZURE_STORAGE_SAS_TOKEN, or run az login"

// azureScope is what tokens are asked for.
const azureScope = "https://storage.azure.com/"

// signer returns the credentials, in the order of Azure's own programs. It is nil if there are
// none.
func (a *azureAccount) signer(c *client) (azureSigner, error) {
	keepSecret(a.sas)
	keepSecret(a.key)
	switch {
	case a.sas != "":
		return sharedAccess{strings.TrimPrefix(a.sas, "?")}, nil
	case a.key != "":
		key, err := base64.StdEncoding.DecodeString(a.key)
		if err != nil {
			return nil, errors.New("the key of the storage account is not base64")
		}
		return sharedKey{a.name, key}, nil
	}
	if fetch := azureTokens(c); fetch != nil {
		return &bearer{fetch: fetch}, nil
	}
	return nil, nil
}

// sharedAccess is the query of a shared access signature.
type sharedAccess struct{ query string }

func (s sharedAccess) sign(r *http.Request) error {
	if r.URL.RawQuery != "" {
		r.URL.RawQuery += "&"
	}
	r.URL.RawQuery += s.query
	return nil
}

// sharedKey signs with the key of an account.
type sharedKey struct {
	account string
	key     []byte
}

// sign adds a signature as "Authorize with Shared Key" in Azure's documentation describes it.
func (s sharedKey) sign(r *http.Request) error {
	h := r.Header
	parts := []string{r.Method, h.Get("Content-Encoding"), h.Get("Content-Language"), "",
		h.Get("Content-MD5"), h.Get("Content-Type"), "", h.Get("If-Modified-Since"),
		h.Get("If-Match"), h.Get("If-None-Match"), h.Get("If-Unmodified-Since"), h.Get("Range")}
	var own []string
	for name := range h {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-ms-") {
			own = append(own, low+":"+strings.TrimSpace(h.Get(name)))
		}
	}
	slices.Sort(own)
	parts = append(parts, own...)
	resource := "/" + s.account + r.URL.EscapedPath()
	query := r.URL.Query()
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := slices.Sorted(slices.Values(query[name]))
		resource += "\n" + strings.ToLower(name) + ":" + strings.Join(values, ",")
	}
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte(strings.Join(append(parts, resource), "\n")))
	h.Set("Authorization", "SharedKey "+s.account+":"+
		base64.StdEncoding.EncodeToString(m.Sum(nil)))
	return nil
}

// bearer adds a token, which it renews before it ends.
type bearer struct {
	fetch func(ctx context.Context) (token string, lasts time.Duration, err error)

	mu    sync.Mutex
	token string
	until time.Time
}

func (b *bearer) sign(r *http.Request) error {
	const early = 2 * time.Minute
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Until(b.until) < early {
		token, lasts, err := b.fetch(r.Context())
		if err != nil {
			return err
		}
		keepSecret(token)
		b.token, b.until = token, time.Now().Add(lasts)
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	return nil
}

// azureTokens finds a way to get tokens: a service principal, a workload or a managed identity, or
// the command az. It is nil if there is none.
func azureTokens(c *client) func(context.Context) (string, time.Duration, error) {
	tenant, id := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID")
	authority := cmp.Or(os.Getenv("AZURE_AUTHORITY_HOST"), "https://login.microsoftonline.com")
	address := strings.TrimSuffix(authority, "/") + "/" + tenant + "/oauth2/v2.0/token"
	form := url.Values{"client_id": {id}, "grant_type": {"client_credentials"},
		"scope": {azureScope + ".default"}}
	switch secret, file := os.Getenv("AZURE_CLIENT_SECRET"),
		os.Getenv("AZURE_FEDERATED_TOKEN_FILE"); {
	case tenant != "" && id != "" && secret != "":
		form.Set("client_secret", secret)
		return func(ctx context.Context) (string, time.Duration, error) {
			return c.postToken(ctx, address, form)
		}
	case tenant != "" && id != "" && file != "":
		return func(ctx context.Context) (string, time.Duration, error) {
			return c.assertToken(ctx, address, form, file)
		}
	case os.Getenv("IDENTITY_ENDPOINT") != "":
		return c.managedIdentity(os.Getenv("IDENTITY_ENDPOINT"), "2019-08-01", id,
			"X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	case id != "" || onAzure():
		return c.managedIdentity("http://169.254.169.254/metadata/identity/oauth2/token",
			"2018-02-01", id, "Metadata", "true")
	}
	if az, err := exec.LookPath("az"); err == nil {
		return func(ctx context.Context) (string, time.Duration, error) { return azToken(ctx, az) }
	}
	return nil
}

// onAzure reports whether this is a machine of Azure. All of them have this asset tag, so no
// network is needed to find out.
func onAzure() bool {
	tag, err := os.ReadFile("/sys/class/dmi/id/chassis_asset_tag")
	return err == nil && strings.TrimSpace(string(tag)) == "7783-7084-3265-9085-8269-3286-77"
}

// assertToken changes the token of a Kubernetes service account, which is renewed in its file, for
// one of Azure.
func (c *client) assertToken(ctx context.Context, address string, form url.Values, file string) (
	string, time.Duration, error) {
	assertion, err := os.ReadFile(file)
	if err != nil {
		return "", 0, err
	}
	with := url.Values{
		"client_assertion":      {strings.TrimSpace(string(assertion))},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	for k, v := range form {
		with[k] = v
	}
	return c.postToken(ctx, address, with)
}

// postToken asks for a token with a form.
func (c *client) postToken(ctx context.Context, address string,
	form url.Values) (string, time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address,
		strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.token(r)
}

// managedIdentity asks the machine's own service for tokens.
func (c *client) managedIdentity(address, version, id, header, value string) func(context.Context) (
	string, time.Duration, error) {
	query := url.Values{"api-version": {version}, "resource": {azureScope}}
	if id != "" {
		query.Set("client_id", id)
	}
	return func(ctx context.Context) (string, time.Duration, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?"+query.Encode(), nil)
		if err != nil {
			return "", 0, err
		}
		r.Header.Set(header, value)
		return c.token(r)
	}
}

// token sends a request for a token. The life of the token is a number or a string.
func (c *client) token(r *http.Request) (string, time.Duration, error) {
	answer, err := c.do(r)
	if err != nil {
		return "", 0, err
	}
	if err := statusError(answer); err != nil {
		return "", 0, fmt.Errorf("%s: %w", r.URL.Host, unpinned(err))
	}
	defer answer.Body.Close()
	var t struct {
		Token string      `json:"access_token"`
		Lasts json.Number `json:"expires_in"`
	}
	err = json.NewDecoder(http.MaxBytesReader(nil, answer.Body, 1<<20)).Decode(&t)
	seconds, _ := strconv.ParseFloat(t.Lasts.String(), 64)
	if err != nil || t.Token == "" || seconds <= 0 {
		return "", 0, fmt.Errorf("%s: the answer has no token", r.URL.Host)
	}
	return t.Token, time.Duration(seconds * float64(time.Second)), nil
}

// azToken asks the command az for a token.
func azToken(ctx context.Context, az string) (string, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, az, "account", "get-access-token", "--resource",
		azureScope, "--output", "json").Output()
	if err != nil {
		return "", 0, fmt.Errorf("az account get-access-token failed: run az login: %w", err)
	}
	var t struct {
		AccessToken string `json:"accessToken"`
		Until       int64  `json:"expires_on"`
	}
	if err := json.Unmarshal(out, &t); err != nil || t.AccessToken == "" {
		return "", 0, errors.New("az account get-access-token printed no token")
	}
	if t.Until == 0 { // an old az prints the time without a zone
		return t.AccessToken, 5 * time.Minute, nil
	}
	return t.AccessToken, time.Until(time.Unix(t.Until, 0)), nil
}
