package remote

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// s3 is a folder of a bucket of Amazon S3, or of a store with the same interface. Objects are
// pinned by their ETag, which every request demands (If-Match).
type s3 struct {
	bucket string
	prefix string // empty, or with a slash at its end
	site   site
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
	if _, err := s.keys.get(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	return s, nil
}

// splitS3 takes bucket/prefix apart. A prefix with and without a slash at its end is the same
// folder.
func splitS3(rest string) (bucket, prefix string, err error) {
	bucket, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimRight(prefix, "/")
	switch {
	case bucket == "":
		return "", "", fmt.Errorf("s3://%s names no bucket: write s3://BUCKET/FOLDER", rest)
	case strings.HasPrefix(bucket, "arn:"), strings.HasSuffix(bucket, "--x-s3"):
		return "", "", fmt.Errorf("s3://%s: access points and directory buckets are not supported: "+
			"name a general purpose bucket", bucket)
	case !bucketName.MatchString(bucket) || strings.Contains(bucket, ".."):
		return "", "", fmt.Errorf("%q is not the name of a bucket: write s3://BUCKET/FOLDER", bucket)
	case prefix == "":
		return bucket, "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if !isPlainName(part) {
			return "", "", fmt.Errorf("s3://%s: the folder has the part %q, which cannot be the "+
				"name of a file", bucket, part)
		}
	}
	return bucket, prefix + "/", nil
}

var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// isPlainName reports whether part of a key may be the name of a file or folder.
func isPlainName(part string) bool {
	return part != "" && part != "." && part != ".." && len(part) <= 255 &&
		utf8.ValidString(part) && !strings.ContainsFunc(part, unicode.IsControl) &&
		!strings.ContainsAny(part, `/\`)
}

func (s *s3) name() string { return "s3://" + s.bucket + "/" + s.prefix }

// public reports whether requests are not signed.
func (s *s3) public() bool { return s.keys.anonymous() }

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

const s3PageSize = 1000 // the most that S3 gives

// list lists a folder. It counts what it leaves out too, so a listing of any size comes to its end.
func (s *s3) list(ctx context.Context, folder string, most int) ([]object, error) {
	l := s3Listing{under: s.prefix, prefix: s.prefix, seen: map[string]bool{}}
	if folder != "." {
		l.prefix += folder + "/"
	}
	query := url.Values{"list-type": {"2"}, "delimiter": {"/"}, "prefix": {l.prefix},
		"encoding-type": {"url"}}
	for l.count < most {
		query.Set("max-keys", strconv.Itoa(min(s3PageSize, most-l.count)))
		page, err := s.page(ctx, query)
		if err == nil {
			err = l.add(page)
		}
		if err != nil {
			return nil, fmt.Errorf("listing s3://%s/%s: %w", s.bucket, l.prefix, err)
		}
		next := page.NextContinuationToken
		if !page.IsTruncated || next == "" || next == query.Get("continuation-token") {
			break
		}
		query.Set("continuation-token", next)
	}
	if l.count == 0 {
		return nil, fmt.Errorf("%w: s3://%s has no objects below %q", source.ErrMissing, s.bucket,
			l.prefix)
	}
	slices.SortFunc(l.objects, func(a, b object) int { return strings.Compare(a.name, b.name) })
	return l.objects[:min(len(l.objects), most)], nil
}

// page asks for one page of a listing. It asks again while the store wants that.
func (s *s3) page(ctx context.Context, query url.Values) (*s3Page, error) {
	const tries = 5
	for try, wait := 1, 200*time.Millisecond; ; try, wait = try+1, 2*wait {
		page, err := s.onePage(ctx, query)
		after, again := mayPass(err)
		if !again || try == tries {
			return page, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(max(wait, after)):
		}
	}
}

// onePage asks for one page once.
func (s *s3) onePage(ctx context.Context, query url.Values) (*s3Page, error) {
	const mostBytes = 32 << 20
	r, err := s.ask(ctx, "", query, nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBytes))
	if err != nil {
		return nil, &delay{err: err}
	}
	page := &s3Page{}
	if err := xml.Unmarshal(body, page); err != nil {
		return nil, fmt.Errorf("the answer of %s is not a listing of S3: check the endpoint",
			r.Request.URL.Host)
	}
	return page, nil
}

// s3Listing collects the objects of a folder.
type s3Listing struct {
	under   string // the prefix of the source
	prefix  string // of the folder
	objects []object
	seen    map[string]bool
	count   int // of keys and folders, with those that were left out
}

// add adds a page. Objects come before folders, so a file hides a folder of its name.
func (l *s3Listing) add(p *s3Page) error {
	for _, c := range p.Contents {
		key, err := p.decode(c.Key)
		if err != nil || c.Size < 0 {
			return fmt.Errorf("the listing has the key %q of %d bytes", c.Key, c.Size)
		}
		etag := quoted(c.ETag)
		o := object{size: c.Size, version: etag, etag: etag}
		o.modified, _ = time.Parse(time.RFC3339, c.LastModified)
		if etag == "" {
			o.version = fmt.Sprint(c.LastModified, " ", c.Size)
			o.unseen = "the store gives no ETag, so an object that is replaced within a second by " +
				"one of the same size is not noticed: use a store with ETags"
		}
		if err := l.put(key, o); err != nil {
			return err
		}
	}
	for _, c := range p.CommonPrefixes {
		key, err := p.decode(c.Prefix)
		if err != nil {
			return fmt.Errorf("the listing has the folder %q", c.Prefix)
		}
		if err := l.put(strings.TrimSuffix(key, "/"), object{dir: true}); err != nil {
			return err
		}
	}
	return nil
}

// put adds an object by its key. The object with the name of the folder marks the folder, and is
// left out. So are keys that cannot be names of files.
func (l *s3Listing) put(key string, o object) error {
	l.count++
	rest, below := strings.CutPrefix(key, l.prefix)
	if !below {
		return fmt.Errorf("the listing has the key %q, which is not below %q", key, l.prefix)
	}
	if !isPlainName(rest) || l.seen[rest] {
		return nil
	}
	l.seen[rest] = true
	o.name = key[len(l.under):]
	l.objects = append(l.objects, o)
	return nil
}

// decode undoes the encoding of a key, which lets XML carry every character.
func (p *s3Page) decode(key string) (string, error) {
	if p.EncodingType == "url" {
		return url.QueryUnescape(key)
	}
	return key, nil
}

// quoted is an ETag as it is in a header. Some stores leave out the quotes.
func quoted(etag string) string {
	if etag == "" || strings.HasSuffix(etag, `"`) {
		return etag
	}
	return `"` + etag + `"`
}

// get asks for bytes of the pinned version of an object.
func (s *s3) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}}
	if o.etag != "" {
		header.Set("If-Match", o.etag)
	} else {
		header.Set("If-Unmodified-Since", o.modified.UTC().Format(http.TimeFormat))
	}
	r, err := s.ask(ctx, s.prefix+o.name, nil, header)
	if err != nil {
		return nil, err
	}
	if etag := r.Header.Get("ETag"); etag != "" {
		r.Header.Set("ETag", quoted(etag))
	}
	return r, nil
}

// ask sends a signed request for an object, or for the bucket if the key is empty. It sends it
// again once for another region, and once with new credentials if they had expired.
func (s *s3) ask(ctx context.Context, key string, query url.Values, header http.Header) (*http.Response, error) {
	moved, renewed := false, false
	for {
		keys, err := s.keys.get(ctx)
		if err != nil {
			return nil, err
		}
		region := *s.region.Load()
		r, err := s.send(ctx, region, key, query, header, keys)
		if err != nil {
			return nil, err
		}
		if r.StatusCode == http.StatusOK || r.StatusCode == http.StatusPartialContent {
			return r, nil
		}
		f := readS3Failure(r, keys)
		switch to := f.region; {
		case to != "" && to != region && !moved:
			moved = true
			s.region.Store(&to)
		case f.expired() && !renewed && s.keys.renew(keys):
			renewed = true
		default:
			return nil, s.explain(f, key, keys)
		}
	}
}

// send signs and sends a request.
func (s *s3) send(ctx context.Context, region, key string, query url.Values, header http.Header,
	keys *s3Key) (*http.Response, error) {
	r := (&http.Request{Method: http.MethodGet, URL: s.site.url(region, s.bucket, key, query),
		Header: http.Header{}}).WithContext(ctx)
	for name, values := range header {
		r.Header[name] = values
	}
	if s.payer != "" {
		r.Header.Set("X-Amz-Request-Payer", s.payer)
	}
	if !keys.anonymous() {
		r.Header.Set("X-Amz-Content-Sha256", emptySHA256)
		r = signer.SignV4(*r, keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken,
			signingRegion(region))
	}
	return s.client.do(r)
}

// emptySHA256 is the SHA-256 of the body of a request without one.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
