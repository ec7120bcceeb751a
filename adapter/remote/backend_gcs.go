package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// gcs is a folder of a bucket of Google Cloud Storage, read by its JSON API. Objects are pinned by
// their generation.
type gcs struct {
	base    string // of the API
	bucket  string
	prefix  string // empty, or with a slash at its end
	client  *client
	tokens  oauth2.TokenSource // nil: none
	project string             // that pays for requests; empty: the bucket's
}

// googleStorage is the usual base.
const googleStorage = "https://storage.googleapis.com"

// openGCS opens gs://bucket/prefix. Credentials are Google's application default credentials. An
// emulator (STORAGE_EMULATOR_HOST) gets none.
func openGCS(ctx context.Context, a address, c *client) (backend, error) {
	bucket, prefix, err := bucketOf(a)
	if err != nil {
		return nil, err
	}
	g := &gcs{base: googleStorage, bucket: bucket, prefix: prefix, client: c,
		project: os.Getenv("GOOGLE_CLOUD_QUOTA_PROJECT")}
	if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" {
		if !strings.Contains(host, "://") {
			host = "http://" + host
		}
		g.base = strings.TrimSuffix(host, "/")
		return g, nil
	}
	g.tokens, err = googleTokens(c)
	return g, err
}

// googleTokens finds the credentials that Google's own programs use. It returns nil if there are
// none, since public buckets need none.
func googleTokens(c *client) (oauth2.TokenSource, error) {
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, c.http)
	found, err := google.FindDefaultCredentials(ctx,
		"https://www.googleapis.com/auth/devstorage.read_only")
	switch {
	case err == nil:
		return found.TokenSource, nil
	case os.Getenv("GOOGLE_APPLICATION_CREDENTIALS") != "":
		_, why, found := strings.Cut(err.Error(), "environment variable: ")
		if !found {
			why = err.Error()
		}
		return nil, fmt.Errorf("GOOGLE_APPLICATION_CREDENTIALS does not name a file with "+
			"credentials: correct it, or unset it (%s)", why)
	}
	return nil, nil
}

// bucketOf takes bucket/prefix apart.
func bucketOf(a address) (bucket, prefix string, err error) {
	bucket, prefix, _ = strings.Cut(a.rest, "/")
	if bucket == "" {
		return "", "", fmt.Errorf("it names no bucket: write %s://BUCKET/FOLDER", a.scheme)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

// server is the address of an emulator.
func (g *gcs) server() string {
	if g.base == googleStorage {
		return ""
	}
	return g.base
}

func (g *gcs) name() string              { return "gs://" + g.bucket + "/" + g.prefix }
func (g *gcs) public() bool              { return g.tokens == nil }
func (g *gcs) download() source.Download { return source.Download{} }

// gcsPage is one page of a listing. The API writes numbers of 64 bits as strings.
type gcsPage struct {
	Kind  string
	Items []struct {
		Name            string
		Size            string
		Generation      string
		Updated         time.Time
		ContentEncoding string
	}
	Prefixes      []string
	NextPageToken string
}

// gcsListing is the kind of every page. Without it, another answer would be an empty page.
const gcsListing = "storage#objects"

// list lists a folder.
func (g *gcs) list(ctx context.Context, folder string, most int) ([]object, error) {
	l := lister{under: g.prefix, most: most}
	query := url.Values{
		"prefix": {l.in(folder)}, "delimiter": {"/"}, "maxResults": {"1000"},
		"fields": {"kind,items(name,size,generation,updated,contentEncoding),prefixes,nextPageToken"},
	}
	for !l.full() {
		var page gcsPage
		if err := g.page(ctx, query, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Prefixes {
			l.folder(p)
		}
		for _, i := range page.Items {
			size, err := strconv.ParseInt(i.Size, 10, 64)
			if err != nil || i.Generation == "" {
				return nil, fmt.Errorf("the listing has %q with size %q and generation %q", i.Name,
					i.Size, i.Generation)
			}
			l.add(object{name: i.Name, size: size, version: i.Generation, modified: i.Updated,
				refused: recoded(i.ContentEncoding)})
		}
		if page.NextPageToken == "" {
			break
		}
		l.turn(page.NextPageToken)
		query.Set("pageToken", page.NextPageToken)
	}
	return l.result(g.client, g.name())
}

// recoded refuses objects that are stored compressed. A server may decompress such an object as it
// is read, and then ranges mean other bytes.
func recoded(encoding string) error {
	if encoding == "" || encoding == "identity" {
		return nil
	}
	return fmt.Errorf("it is stored with Content-Encoding %s, so its ranges are not known: "+
		"upload it uncompressed", encoding)
}

// page reads one page of a listing.
func (g *gcs) page(ctx context.Context, query url.Values, page *gcsPage) error {
	return persist(ctx, func() error {
		*page = gcsPage{}
		return g.explain(g.pageOnce(ctx, query, page))
	})
}

func (g *gcs) pageOnce(ctx context.Context, query url.Values, page *gcsPage) error {
	r, err := g.ask(ctx, "/storage/v1/b/"+url.PathEscape(g.bucket)+"/o", query, nil)
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
	if err = json.Unmarshal(text, page); err != nil || page.Kind != gcsListing {
		return fmt.Errorf("the answer of %s is not a listing of objects (kind %q): %w",
			r.Request.URL.Host, oneLine(page.Kind), cmp.Or(err, errAnswer))
	}
	return nil
}

// explain adds the way out to an error of the whole bucket.
func (g *gcs) explain(err error) error {
	switch {
	case hasStatus(err, http.StatusNotFound):
		return fmt.Errorf("there is no bucket %s, or it is not visible to you: check its name: %w",
			g.bucket, unpinned(err))
	case hasStatus(err, http.StatusUnauthorized), hasStatus(err, http.StatusForbidden):
		way := "ask for the role Storage Object Viewer"
		if g.tokens == nil {
			way = "no credentials were found: run gcloud auth application-default login, or set " +
				"GOOGLE_APPLICATION_CREDENTIALS"
		}
		return fmt.Errorf("the bucket %s may not be listed: %s: %w", g.bucket, way, unpinned(err))
	}
	return err
}

// get asks for bytes of one generation.
func (g *gcs) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	r, err := g.ask(ctx, "/storage/v1/b/"+url.PathEscape(g.bucket)+"/o/"+
		url.PathEscape(g.prefix+o.name), url.Values{
		"alt": {"media"}, "generation": {o.version},
	}, http.Header{"Range": {rangeOf(off, n)}})
	if err != nil {
		return nil, err
	}
	if err := statusError(r); err != nil {
		return nil, err
	}
	if err := sameGeneration(r.Header.Get("X-Goog-Generation"), o.version); err != nil {
		r.Body.Close()
		return nil, err
	}
	return r, nil
}

// sameGeneration compares the generation of an answer. An answer without one may be of any.
func sameGeneration(now, was string) error {
	switch now {
	case was:
		return nil
	case "":
		return fmt.Errorf("%w: it has no generation, and should have %s", errAnswer, was)
	}
	return fmt.Errorf("%w: its generation is %s, and was %s", source.ErrChanged, now, was)
}

// ask sends a GET with the credentials.
func (g *gcs) ask(ctx context.Context, path string, query url.Values,
	h http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h {
		r.Header[k] = v
	}
	if g.project != "" {
		r.Header.Set("X-Goog-User-Project", g.project)
	}
	if g.tokens != nil {
		token, err := g.tokens.Token()
		if err != nil {
			return nil, fmt.Errorf("credentials of Google: %w", clean(err))
		}
		keepSecret(token.AccessToken)
		token.SetAuthHeader(r)
	}
	return g.client.do(r)
}
