package remote

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// s3 is a folder of a bucket of Amazon S3, or of a store with the same interface. Objects are
// pinned by their ETag, which every request demands (If-Match).
type s3 struct {
	bucket string
	prefix string // empty, or with a slash at its end
	site   s3Site
	payer  string // who pays for requests, if not the owner of the bucket
	client *client
	keys   *s3Keys
	region atomic.Pointer[string] // for signatures, and the host if it is Amazon's
}

// openS3 opens s3://bucket/prefix. It looks for the credentials and the endpoint in the places
// where the AWS CLI does.
func openS3(ctx context.Context, a address, c *client) (backend, error) {
	bucket, prefix, err := splitS3(a.rest)
	if err != nil {
		return nil, err
	}
	files, err := readProfiles()
	if err != nil {
		return nil, err
	}
	s := &s3{bucket: bucket, prefix: prefix, client: c, payer: os.Getenv("AWS_REQUEST_PAYER")}
	if s.site, err = siteOf(files, bucket); err != nil {
		return nil, err
	}
	region := regionOf(files)
	s.region.Store(&region)
	s.keys = newS3Keys(&s3Chain{files: files, region: region, client: c.http})
	key, err := s.keys.get(ctx)
	if err != nil {
		return nil, err
	}
	s.keys.unsigned = key.anonymous()
	return s, nil
}

// splitS3 takes bucket/prefix apart. A prefix with and without a slash at its end is the same
// folder.
func splitS3(rest string) (bucket, prefix string, err error) {
	bucket, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimRight(prefix, "/")
	switch {
	case bucket == "":
		return "", "", fmt.Errorf("it names no bucket: write s3://BUCKET/FOLDER")
	case strings.HasPrefix(bucket, "arn:"), strings.HasSuffix(bucket, "--x-s3"):
		return "", "", errors.New("access points and directory buckets are not supported: " +
			"name a general purpose bucket")
	case !bucketName.MatchString(bucket) || strings.Contains(bucket, ".."):
		return "", "", fmt.Errorf("%q is not the name of a bucket: write s3://BUCKET/FOLDER", bucket)
	case prefix == "":
		return bucket, "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if !isName(part) {
			return "", "", fmt.Errorf("the folder has the part %q, which cannot be the name of a "+
				"file", part)
		}
	}
	return bucket, prefix + "/", nil
}

var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

func (s *s3) name() string { return "s3://" + s.bucket + "/" + s.prefix }

// server is the endpoint, unless it is Amazon's.
func (s *s3) server() string {
	if s.site.endpoint == nil {
		return ""
	}
	return serverName(s.site.endpoint)
}

// public reports whether requests are not signed. This does not change.
func (s *s3) public() bool { return s.keys.unsigned }

func (s *s3) download() source.Download { return source.Download{} }

// s3Page is one page of a listing.
type s3Page struct {
	XMLName  xml.Name `xml:"ListBucketResult"`
	Contents []struct {
		Key, ETag, LastModified string
		Size                    int64
	}
	CommonPrefixes        []struct{ Prefix string }
	EncodingType          string
	IsTruncated           bool
	NextContinuationToken string
}

// list lists a folder.
func (s *s3) list(ctx context.Context, folder string, most int) ([]object, error) {
	l := lister{under: s.prefix, most: most}
	query := url.Values{"list-type": {"2"}, "delimiter": {"/"}, "prefix": {l.in(folder)},
		"encoding-type": {"url"}, "max-keys": {"1000"}}
	for !l.full() {
		page, err := s.page(ctx, query)
		if err != nil {
			return nil, err
		}
		page.addTo(&l)
		if !page.IsTruncated {
			break
		}
		l.turn(page.NextContinuationToken)
		query.Set("continuation-token", page.NextContinuationToken)
	}
	return l.result(s.client, s.name())
}

// page asks for one page of a listing. It asks again while the store wants that.
func (s *s3) page(ctx context.Context, query url.Values) (page *s3Page, err error) {
	err = insist(ctx, mostAsked, mayPass, func() (err error) {
		page, err = s.onePage(ctx, query)
		return err
	})
	return page, err
}

// onePage asks for one page once.
func (s *s3) onePage(ctx context.Context, query url.Values) (*s3Page, error) {
	r, err := s.ask(ctx, "", query, nil)
	if err != nil {
		return nil, err
	}
	body, err := readPage(r)
	if err != nil {
		return nil, err
	}
	page := &s3Page{}
	if err := xml.Unmarshal(body, page); err != nil {
		return nil, fmt.Errorf("the answer of %s is not a listing of S3: check the endpoint",
			r.Request.URL.Host)
	}
	return page, nil
}

// addTo adds the objects of a page. They come before folders, so a file hides a folder of its name.
func (p *s3Page) addTo(l *lister) {
	for _, c := range p.Contents {
		etag := quoted(c.ETag)
		o := object{name: p.decode(c.Key), size: c.Size, version: etag, etag: etag}
		// shown, and compared without an ETag
		o.modified, _ = time.Parse(time.RFC3339, c.LastModified)
		if etag == "" {
			o.version = c.LastModified
			o.unseen = "the store gives no ETag, so an object that is replaced within a second " +
				"by one of the same size is not noticed: use a store with ETags"
		}
		l.add(o)
	}
	for _, c := range p.CommonPrefixes {
		l.folder(p.decode(c.Prefix))
	}
}

// decode undoes the encoding of a key, which lets XML carry every character. A key that is not
// encoded is taken as it is.
func (p *s3Page) decode(key string) string {
	if plain, err := url.QueryUnescape(key); p.EncodingType == "url" && err == nil {
		return plain
	}
	return key
}

// quoted is an ETag as it is in a header. Some stores leave out the quotes.
func quoted(etag string) string {
	if etag == "" || strings.HasSuffix(etag, `"`) {
		return etag
	}
	return `"` + etag + `"`
}

// get asks for bytes of the pinned version of an object. Without an ETag, its time is compared.
func (s *s3) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	header := http.Header{"Range": {rangeOf(off, n)}}
	if o.etag != "" {
		header.Set("If-Match", o.etag)
	} else { // a second later, since some stores compare parts of a second that they do not list
		header.Set("If-Unmodified-Since", o.modified.UTC().Add(time.Second).Format(http.TimeFormat))
	}
	a, err := s.ask(ctx, s.prefix+o.name, nil, header)
	if err != nil {
		return nil, err
	}
	if o.etag == "" && a.Header.Get("Last-Modified") != o.modified.UTC().Format(http.TimeFormat) {
		a.Body.Close()
		return nil, fmt.Errorf("%w: it is of %s, and was of %s", source.ErrChanged,
			a.Header.Get("Last-Modified"), o.modified.UTC().Format(http.TimeFormat))
	}
	if etag := a.Header.Get("ETag"); etag != "" {
		a.Header.Set("ETag", quoted(etag))
	}
	return a, nil
}

// s3Try is what has been tried for one request.
type s3Try struct {
	moved   bool   // to the region that the store told
	renewed bool   // the credentials
	at      *place // where redirects have led; nil: to no other address
	steps   int    // redirects
}

// ask sends a signed request for an object, or for the bucket if the key is empty. It sends it
// again once for another region, once with new credentials if they had expired, and where a
// redirect leads. Requests to other origins than that of the endpoint are not signed.
func (s *s3) ask(ctx context.Context, key string, query url.Values, header http.Header) (
	*http.Response, error) {
	for try := (s3Try{}); ; {
		keys, err := s.keys.get(ctx)
		if err != nil {
			return nil, err
		}
		region := *s.region.Load()
		r, err := s.request(ctx, try.at, region, key, query)
		if err != nil {
			return nil, err
		}
		if try.at == nil || origin(try.at.url) == origin(s.site.url(region, s.bucket, key, nil)) {
			r = keys.sign(r, region)
		}
		maps.Copy(r.Header, header) // not signed, since proxies may change them
		a, err := s.client.do(r)
		if err != nil || a.StatusCode == http.StatusOK ||
			a.StatusCode == http.StatusPartialContent {
			return a, err
		}
		f := readS3Failure(a)
		to, err := redirect(a)
		switch {
		case s.again(&try, f, to, region, keys):
		case err != nil && a.Header.Get("Location") != "":
			return nil, fmt.Errorf("bucket %s: %w", s.bucket, err)
		default:
			return nil, s.explain(f, key, keys)
		}
	}
}

// again decides whether a request is sent again at once, in another way.
func (s *s3) again(try *s3Try, f *s3Failure, to *place, region string, keys *s3Key) bool {
	switch {
	case f.region != "" && f.region != signingRegion(region) && !try.moved:
		s.region.Store(&f.region)
		try.moved, try.at = true, nil
	case f.expired() && !try.renewed && s.keys.renew(keys):
		try.renewed = true
	case to != nil && try.steps < mostRedirects:
		try.at, try.steps = to, try.steps+1
	default:
		return false
	}
	return true
}

// request makes a request to the address of an object, or to where a redirect has led.
func (s *s3) request(ctx context.Context, at *place, region, key string, query url.Values) (
	*http.Request, error) {
	if at != nil {
		return at.request(ctx, http.MethodGet)
	}
	u := s.site.url(region, s.bucket, key, query)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && s.payer != "" {
		r.Header.Set("X-Amz-Request-Payer", s.payer)
	}
	return r, clean(err)
}

// sign signs a request, which has no body.
func (k *s3Key) sign(r *http.Request, region string) *http.Request {
	if k.anonymous() {
		return r
	}
	r.Header.Set("X-Amz-Content-Sha256", emptySHA256)
	return signer.SignV4(*r, k.AccessKeyID, k.SecretAccessKey, k.SessionToken,
		signingRegion(region))
}

// emptySHA256 is the SHA-256 of the body of a request without one.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
