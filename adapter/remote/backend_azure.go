package remote

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// azureVersion is the version of the protocol.
const azureVersion = "2021-12-02"

// azure is a folder of a container of Azure Blob Storage. Blobs are pinned by their ETag.
type azure struct {
	endpoint  *url.URL // of the account
	account   string
	container string
	prefix    string // empty, or with a slash at its end
	client    *client
	sign      azureSigner
}

// azureSigner adds credentials to a request. A nil signer adds none.
type azureSigner interface {
	sign(r *http.Request) error
}

// openAzure opens az://account/container/prefix.
func openAzure(_ context.Context, a address, c *client) (backend, error) {
	account, rest, _ := strings.Cut(a.rest, "/")
	container, prefix, err := bucketOf(address{scheme: a.scheme, rest: rest})
	if account == "" || err != nil {
		return nil, errors.New("it names no container: write az://ACCOUNT/CONTAINER/FOLDER")
	}
	settings, err := azureSettings(account)
	if err != nil {
		return nil, err
	}
	z := &azure{endpoint: settings.endpoint, account: account, container: container,
		prefix: prefix, client: c}
	z.sign, err = settings.signer(c)
	return z, err
}

func (z *azure) name() string {
	return "az://" + z.account + "/" + z.container + "/" + z.prefix
}

// server is the endpoint of the account.
func (z *azure) server() string { return serverName(z.endpoint) }

func (z *azure) public() bool              { return z.sign == nil }
func (z *azure) download() source.Download { return source.Download{} }

// azurePage is one page of a listing.
type azurePage struct {
	XMLName xml.Name `xml:"EnumerationResults"`
	Blobs   struct {
		Blob []struct {
			Name       string
			Properties struct {
				Size     int64  `xml:"Content-Length"`
				Modified string `xml:"Last-Modified"`
				Etag     string
				Encoding string `xml:"Content-Encoding"`
				Tier     string `xml:"AccessTier"`
				Kind     string `xml:"ResourceType"` // "directory" for a folder of a data lake
			}
		}
		BlobPrefix []struct{ Name string }
	}
	NextMarker string
}

// list lists a folder.
func (z *azure) list(ctx context.Context, folder string, most int) ([]object, error) {
	l := lister{under: z.prefix, most: most}
	query := url.Values{
		"restype": {"container"}, "comp": {"list"}, "prefix": {l.in(folder)}, "delimiter": {"/"},
		"maxresults": {"5000"},
	}
	for !l.full() {
		var page azurePage
		if err := z.page(ctx, query, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Blobs.BlobPrefix {
			l.folder(p.Name)
		}
		for _, b := range page.Blobs.Blob {
			p := b.Properties
			if p.Kind == "directory" {
				continue
			}
			etag := p.Etag
			if etag == "" {
				return nil, fmt.Errorf("the listing has %q without an ETag", b.Name)
			}
			if !strings.HasPrefix(etag, `"`) {
				etag = `"` + etag + `"`
			}
			modified, _ := http.ParseTime(p.Modified) // it is only shown
			l.add(object{name: b.Name, size: p.Size, version: etag, etag: etag,
				modified: modified, refused: cmp.Or(recoded(p.Encoding), archived(p.Tier))})
		}
		if page.NextMarker == "" {
			break
		}
		l.turn(page.NextMarker)
		query.Set("marker", page.NextMarker)
	}
	return l.result(z.client, z.name())
}

// archived refuses blobs that have to be brought back before they can be read.
func archived(tier string) error {
	if tier != "Archive" {
		return nil
	}
	return fmt.Errorf("it is archived: run az storage blob set-tier --tier Hot, and wait until " +
		"it is back")
}

// page reads one page of a listing.
func (z *azure) page(ctx context.Context, query url.Values, page *azurePage) error {
	return persist(ctx, func() error {
		*page = azurePage{}
		return z.explain(z.pageOnce(ctx, query, page))
	})
}

func (z *azure) pageOnce(ctx context.Context, query url.Values, page *azurePage) error {
	r, err := z.ask(ctx, "", query, nil)
	if err != nil {
		return err
	}
	if err := statusError(r); err != nil {
		return err
	}
	text, err := readPage(r)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(text, page); err != nil {
		return fmt.Errorf("the answer of %s is not a listing of blobs: %w", r.Request.URL.Host, err)
	}
	return nil
}

// explain adds the way out to an error of the whole container.
func (z *azure) explain(err error) error {
	switch {
	case hasStatus(err, http.StatusNotFound) && z.sign == nil:
		return fmt.Errorf("there is no container %s, or it is not public: %s: %w", z.container,
			azureWays, unpinned(err))
	case hasStatus(err, http.StatusNotFound):
		return fmt.Errorf("there is no container %s in %s: check its name: %w", z.container,
			z.account, unpinned(err))
	case hasStatus(err, http.StatusUnauthorized), hasStatus(err, http.StatusForbidden),
		hasStatus(err, http.StatusConflict) && z.sign == nil:
		return fmt.Errorf("the container %s may not be listed: %s: %w", z.container, z.way(),
			unpinned(err))
	}
	return err
}

// way says how a container that may not be listed may be.
func (z *azure) way() string {
	switch z.sign.(type) {
	case nil:
		return "no credentials were found: " + azureWays
	case sharedKey:
		return "correct the key of the account, in AZURE_STORAGE_CONNECTION_STRING or " +
			"AZURE_STORAGE_KEY"
	case sharedAccess:
		return "use a shared access signature that has not expired and may read and list"
	}
	return "ask for the role Storage Blob Data Reader"
}

// get asks for bytes of one version.
func (z *azure) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	r, err := z.ask(ctx, z.prefix+o.name, nil, http.Header{
		"Range": {rangeOf(off, n)}, "If-Match": {o.etag},
	})
	if err != nil {
		return nil, err
	}
	if err := statusError(r); err != nil {
		return nil, err
	}
	return r, nil
}

// ask sends a GET for a blob, or for the container if there is no blob.
func (z *azure) ask(ctx context.Context, blob string, query url.Values,
	h http.Header) (*http.Response, error) {
	address := strings.TrimSuffix(z.endpoint.String(), "/") + "/" + escaped(z.container)
	if blob != "" {
		address += "/" + escaped(blob)
	}
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h {
		r.Header[k] = v
	}
	r.Header.Set("X-Ms-Version", azureVersion)
	r.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
	if z.sign != nil {
		if err := z.sign.sign(r); err != nil {
			return nil, fmt.Errorf("credentials of Azure: %w", err)
		}
	}
	return z.client.do(r)
}

// azureAccount is an account's address and credentials, as the environment gives them.
type azureAccount struct {
	endpoint *url.URL
	name     string
	key      string // base64
	sas      string // query of a shared access signature
}

// azureSettings reads the variables of Azure's own programs: a connection string, or the account's
// key or signature.
func azureSettings(account string) (azureAccount, error) {
	s := azureAccount{name: account}
	endpoint := ""
	if text := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); text != "" {
		fields := connectionString(text)
		if len(fields) == 0 {
			return s,
				errors.New("AZURE_STORAGE_CONNECTION_STRING is not a connection string: copy " +
					"that of the account, or unset it")
		}
		if name := fields["AccountName"]; name == account || name == "" {
			s.key, s.sas = fields["AccountKey"], fields["SharedAccessSignature"]
			endpoint = fields["BlobEndpoint"]
			if endpoint == "" {
				endpoint = cmp.Or(fields["DefaultEndpointsProtocol"], "https") + "://" + account +
					".blob." + cmp.Or(fields["EndpointSuffix"], "core.windows.net")
			}
		}
	}
	named := cmp.Or(os.Getenv("AZURE_STORAGE_ACCOUNT"), os.Getenv("AZURE_STORAGE_ACCOUNT_NAME"))
	if named == "" || named == account {
		s.key = cmp.Or(s.key, os.Getenv("AZURE_STORAGE_KEY"),
			os.Getenv("AZURE_STORAGE_ACCOUNT_KEY"))
		s.sas = cmp.Or(s.sas, os.Getenv("AZURE_STORAGE_SAS_TOKEN"))
		endpoint = cmp.Or(endpoint, os.Getenv("AZURE_STORAGE_SERVICE_ENDPOINT"))
	}
	endpoint = cmp.Or(endpoint, "https://"+account+".blob.core.windows.net")
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return s, fmt.Errorf("the address of the storage account is not a URL: look at " +
			"AZURE_STORAGE_CONNECTION_STRING and AZURE_STORAGE_SERVICE_ENDPOINT")
	}
	if u.RawQuery != "" {
		s.sas = cmp.Or(s.sas, u.RawQuery)
		u.RawQuery = ""
	}
	s.endpoint = u
	return s, nil
}

// connectionString reads "Name=Value;Name=Value".
func connectionString(s string) map[string]string {
	fields := map[string]string{}
	for field := range strings.SplitSeq(s, ";") {
		if name, value, ok := strings.Cut(field, "="); ok {
			fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return fields
}
