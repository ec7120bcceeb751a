package remote

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// s3Failure is an answer of S3 that has no bytes.
type s3Failure struct {
	status int
	code   string // of S3, such as NoSuchKey
	text   string // that the store sent along, without secrets
	region string // where the bucket is, if the store tells
	after  time.Duration
	skew   time.Duration // of this machine's clock
}

func (f *s3Failure) Error() string {
	s := fmt.Sprintf("the server answered %d %s", f.status, http.StatusText(f.status))
	if f.code != "" {
		s += ": " + f.code
	}
	if f.text != "" {
		s += ": " + f.text
	}
	return s
}

// Unwrap returns the status.
func (f *s3Failure) Unwrap() error { return &errStatus{code: f.status} }

// readS3Failure reads and closes an answer. It takes the code and the message only, since other
// elements have parts of the signature.
func readS3Failure(r *http.Response) *s3Failure {
	defer r.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(r.Body, mostBody))
	var x struct{ Code, Message, Region, Endpoint string }
	_ = xml.Unmarshal(body, &x) // proxies answer otherwise
	f := &s3Failure{status: r.StatusCode, code: x.Code, after: retryAfter(r.Header),
		text: oneLine(scrub(x.Message))}
	if !codeName.MatchString(f.code) {
		f.code = ""
	}
	for _, region := range []string{r.Header.Get("X-Amz-Bucket-Region"), x.Region,
		regionIn(r.Header.Get("Location")), regionIn(x.Endpoint)} {
		if regionName.MatchString(region) {
			f.region = region
			break
		}
	}
	if now, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		f.skew = time.Until(now)
	}
	return f
}

var codeName = regexp.MustCompile(`^[A-Za-z0-9.]{1,60}$`)

var regionHost = regexp.MustCompile(`\bs3[.-]([a-z0-9-]+)\.amazonaws\.com`)

// regionIn finds the region in the name of a host of Amazon.
func regionIn(address string) string {
	if m := regionHost.FindStringSubmatch(address); m != nil {
		return m[1]
	}
	return ""
}

// expired reports whether new credentials may help.
func (f *s3Failure) expired() bool {
	switch f.code {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken":
		return true
	}
	return false
}

// s3Ways are the ways out by the code of S3. Of %s there is one: where the credentials are from.
var s3Ways = map[string]string{
	"NoSuchBucket":      "there is no such bucket: check its name and the endpoint",
	"InvalidBucketName": "there is no such bucket: check its name and the endpoint",
	"InvalidAccessKeyId": "the store does not know the key from %s: check it and the " +
		"endpoint",
	"XAdminUserNotFound": "the store does not know the key from %s: check it and the " +
		"endpoint",
	"SignatureDoesNotMatch": "the secret key from %s is not the right one, or a proxy " +
		"changes requests",
	"ExpiredToken": "the credentials from %s have expired: renew them, such as " +
		"by aws sso login",
	"InvalidToken": "the session token from %s is not valid: renew the credentials",
	"InvalidObjectState": "the object is archived: restore it first, such as by aws " +
		"s3api restore-object",
	"AllAccessDisabled":            "the owner has disabled the bucket",
	"AuthorizationHeaderMalformed": "the region is another one: set AWS_REGION",
	"MethodNotAllowed":             "the server does not answer as S3: check the endpoint",
}

// explain turns an answer into an error: source.ErrChanged for an object that is not what was
// listed, a *delay for what may pass, or a final one with the way out.
func (s *s3) explain(f *s3Failure, key string, keys *s3Key) error {
	switch {
	case f.code == "SlowDown" || f.status == http.StatusTooManyRequests ||
		f.status == http.StatusServiceUnavailable:
		return &delay{f, f.after, true}
	case f.code == "RequestTimeout" || f.status == http.StatusRequestTimeout || f.status >= 500:
		return &delay{f, f.after, false}
	case f.code == "RequestTimeTooSkewed":
		return fmt.Errorf("the clock of this machine is %s off: set it right, such as by "+
			"timedatectl set-ntp true: %w", f.skew.Abs().Round(time.Second), f)
	case f.status/100 == 3:
		return fmt.Errorf("bucket %s is at another address: set AWS_REGION, or "+
			"AWS_ENDPOINT_URL_S3 for a store that is not Amazon's: %w", s.bucket, f)
	case strings.Contains(f.text, "Server Side Encryption") && f.status == http.StatusBadRequest:
		return fmt.Errorf("the object is encrypted with a key of the customer (SSE-C), which is "+
			"not supported: copy it to one without: %w", f)
	}
	if way := s3Ways[f.code]; way != "" {
		if strings.Contains(way, "%s") {
			way = fmt.Sprintf(way, keys.from)
		}
		return fmt.Errorf("bucket %s: %s: %w", s.bucket, way, f)
	}
	switch {
	case f.status == http.StatusForbidden || f.status == http.StatusUnauthorized:
		return s.denied(f, key, keys)
	case key != "" && (f.status == http.StatusPreconditionFailed ||
		f.status == http.StatusNotFound ||
		f.status == http.StatusGone || f.status == http.StatusRequestedRangeNotSatisfiable):
		return fmt.Errorf("%w: %w", source.ErrChanged, f)
	case f.status == http.StatusNotFound:
		return fmt.Errorf("bucket %s: there is no such bucket, or the endpoint is not S3: %w",
			s.bucket, f)
	}
	return f
}

// denied explains a refusal. That of an object may pass: its bucket could be listed, so it is more
// likely a mistake. So may one that has no code of S3.
func (s *s3) denied(f *s3Failure, key string, keys *s3Key) error {
	err := fmt.Errorf("bucket %s: the credentials from %s may not read it: ask for "+
		"s3:ListBucket and s3:GetObject: %w", s.bucket, keys.from, f)
	if keys.anonymous() {
		err = fmt.Errorf("bucket %s: it is not public, and no credentials were found (%s): run "+
			"aws configure, or set AWS_PROFILE or AWS_ACCESS_KEY_ID: %w", s.bucket,
			strings.Join(keys.tried, "; "), f)
	}
	if f.code == "" || key != "" {
		return &delay{err, f.after, false}
	}
	return err
}

// mayPass reports whether a request is worth sending again.
func mayPass(err error) bool {
	return errors.As(err, new(*delay)) ||
		errors.As(err, new(*url.Error)) && !errors.As(err, new(wayOut))
}
