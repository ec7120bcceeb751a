package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// fakeS3 opens a bucket of a server that answers as the function does. Real servers do not fail in
// all the ways of Amazon's.
func fakeS3(t *testing.T, answer http.HandlerFunc) *s3 {
	t.Helper()
	noAWS(t)
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	setenv(t, "AWS_ENDPOINT_URL", s.URL, "AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST",
		"AWS_SECRET_ACCESS_KEY", "secret-of-the-test", "AWS_SESSION_TOKEN", "token-of-the-test")
	opened, err := openS3(t.Context(), address{scheme: "s3", rest: "bucket/m"},
		newClient(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	return opened.(*s3)
}

// failing answers with a status and an error of S3.
func failing(status int, code, message string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		if code != "" {
			fmt.Fprintf(w, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>%s</Message>"+
				"<StringToSign>%s</StringToSign></Error>", code, message,
				r.Header.Get("Authorization"))
		}
	}
}

func TestAnswersOfS3AreErrorsOfTheirKind(t *testing.T) {
	const changed, busy, later, never = "changed", "busy", "later", "never"
	for _, c := range []struct {
		status        int
		code, message string
		kind, want    string
	}{
		{412, "PreconditionFailed", "At least one failed", changed, "At least one failed"},
		{412, "", "", changed, "412"},
		{404, "NoSuchKey", "The key does not exist.", changed, "NoSuchKey"},
		{404, "", "", changed, "404"},
		{410, "", "", changed, "410"},
		{416, "InvalidRange", "", changed, "InvalidRange"},
		{404, "NoSuchBucket", "", never, "there is no such bucket"},
		{503, "SlowDown", "Please reduce your request rate.", busy, "reduce"},
		{503, "", "", busy, "503"},
		{429, "TooManyRequests", "", busy, "429"},
		{500, "InternalError", "", later, "InternalError"},
		{400, "RequestTimeout", "", later, "RequestTimeout"},
		{408, "", "", later, "408"},
		{502, "", "", later, "502"},
		{403, "", "", later, "403"}, // of something in between
		{403, "AccessDenied", "Access Denied", later, "ask for s3:ListBucket and s3:GetObject"},
		{401, "Unauthorized", "", later, "credentials from AWS_ACCESS_KEY_ID"},
		{403, "InvalidObjectState", "The operation is not valid", never, "restore it first"},
		{400, "InvalidRequest",
			"The object was stored using a form of Server Side Encryption. The " +
				"correct parameters must be provided.", never, "SSE-C"},
		{403, "SignatureDoesNotMatch", "The request signature we calculated", never, "secret key from AWS_ACCESS_KEY_ID"},
		{403, "InvalidAccessKeyId", "", never, "does not know the key from AWS_ACCESS_KEY_ID"},
		{400, "ExpiredToken", "", never, "have expired: renew them"},
		{400, "AuthorizationHeaderMalformed", "", never, "set AWS_REGION"},
		{403, "RequestTimeTooSkewed", "", never, "the clock of this machine is"},
		{501, "NotImplemented", "", later, "NotImplemented"},
		{405, "MethodNotAllowed", "", never, "check the endpoint"},
		{400, "Strange", "something else", never, "something else"},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			b := fakeS3(t, failing(c.status, c.code, c.message, "Retry-After", "7"))
			_, err := b.get(t.Context(), &object{name: "x", size: 10, etag: `"e"`}, 0, 10)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want %q", err, c.want)
			}
			kind := never
			var d *delay
			switch {
			case errors.Is(err, source.ErrChanged):
				kind = changed
			case errors.As(err, &d) && d.busy:
				kind = busy
			case errors.As(err, &d):
				kind = later
			}
			if kind == never && !final(err) {
				t.Errorf("it is asked for again: %v", err)
			}
			if kind != c.kind || d != nil && d.after != 7*time.Second {
				t.Errorf("it is %s, not %s: %v", kind, c.kind, err)
			}
			for _, secret := range []string{"secret-of", "token-of", "AKIATEST", "Signature=",
				"AWS4-HMAC"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in %v", secret, err)
				}
			}
		})
	}
}

// A store that tells secrets back must not bring them into an error.
func TestMessagesOfS3HaveNoSecrets(t *testing.T) {
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		failing(400, "Strange", "you sent "+r.Header.Get("Authorization")+" and "+
			r.Header.Get("X-Amz-Security-Token")+" and secret-of-the-test\x1b[31m\n\nred")(w, r)
	})
	_, err := b.get(t.Context(), &object{name: "x", size: 1, etag: `"e"`}, 0, 1)
	for _, secret := range []string{"secret-of", "token-of", "AKIATEST", "Signature=", "\x1b",
		"\n"} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in %v", secret, err)
		}
	}
}

// The bucket could be listed, so a refusal of an object is more likely a mistake.
func TestARefusalOfAnObjectMayPass(t *testing.T) {
	b := fakeS3(t, failing(403, "AccessDenied", "Access Denied"))
	if _, err := b.get(t.Context(), &object{name: "x", size: 1, etag: `"e"`}, 0, 1); !errors.As(err,
		new(*delay)) {
		t.Errorf("%v", err)
	}
	if _, err := b.list(t.Context(), ".", 1); err == nil || errors.As(err, new(*delay)) ||
		!final(err) {
		t.Errorf("a listing: %v", err)
	}
}

func TestETagsOfS3HaveQuotes(t *testing.T) {
	b := fakeS3(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", "bare-2")
		w.WriteHeader(http.StatusPartialContent)
	})
	a, err := b.get(t.Context(), &object{name: "x", size: 1, etag: `"bare-2"`}, 0, 1)
	if err != nil || a.Header.Get("ETag") != `"bare-2"` {
		t.Fatalf("%v", err)
	}
	a.Body.Close()
}

const onePage = "<ListBucketResult><Contents><Key>m/x</Key><Size>1</Size><ETag>e</ETag>" +
	"</Contents></ListBucketResult>"

func TestTheBucketTellsItsRegion(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		header []string
		extra  string
	}{
		"a header with 301":     {301, "PermanentRedirect", []string{"X-Amz-Bucket-Region", "eu-west-3"}, ""},
		"a header with 403":     {403, "AccessDenied", []string{"X-Amz-Bucket-Region", "eu-west-3"}, ""},
		"an element with 400":   {400, "AuthorizationHeaderMalformed", nil, "<Region>eu-west-3</Region>"},
		"the address with 307":  {307, "TemporaryRedirect", []string{"Location", "https://b.s3.eu-west-3.amazonaws.com/x"}, ""},
		"the endpoint with 301": {301, "PermanentRedirect", nil, "<Endpoint>b.s3-eu-west-3.amazonaws.com</Endpoint>"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
				_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
				region := strings.Split(scope, "/")[2]
				if asked = append(asked, region); region == "eu-west-3" {
					fmt.Fprint(w, onePage)
					return
				}
				for i := 0; i < len(c.header); i += 2 {
					w.Header().Set(c.header[i], c.header[i+1])
				}
				w.WriteHeader(c.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code>%s</Error>", c.code, c.extra)
			})
			for range 2 {
				if l, err := b.list(t.Context(), ".", 10); err != nil || len(l) != 1 {
					t.Fatalf("%v, %v", l, err)
				}
			}
			if s := strings.Join(asked, " "); s != "us-east-1 eu-west-3 eu-west-3" {
				t.Errorf("signed for %s", s)
			}
		})
	}
}

// A region becomes part of a host's name, so a server must not choose a host by it. One that never
// agrees ends the search.
func TestABadRegionIsNotFollowed(t *testing.T) {
	var requests atomic.Int64
	for region, most := range map[string]int64{"evil.example/": 1, "A": 1, "x-1": 2} {
		requests.Store(0)
		b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
			n := requests.Add(1)
			if region == "x-1" {
				w.Header().Set("X-Amz-Bucket-Region", fmt.Sprint("x-", n))
			} else {
				w.Header().Set("X-Amz-Bucket-Region", region)
			}
			w.WriteHeader(http.StatusMovedPermanently)
		})
		_, err := b.list(t.Context(), ".", 10)
		if err == nil || requests.Load() != most {
			t.Errorf("%s: %v after %d requests", region, err, requests.Load())
		}
	}
}

// Signatures and tokens are for the endpoint alone.
func TestRedirectsToOtherOriginsAreNotSigned(t *testing.T) {
	var seen http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		w.Header().Set("ETag", `"e"`)
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "x")
	}))
	defer other.Close()
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		to := other.URL + "/signed?X-Amz-Signature=s"
		if r.URL.Path == "/bucket/m/near" {
			to = "/bucket/m/far"
		}
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	a, err := b.get(t.Context(), &object{name: "near", size: 1, etag: `"e"`}, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if seen.Get("Range") != "bytes=0-0" || seen.Get("If-Match") != `"e"` {
		t.Errorf("the conditions are lost: %v", seen)
	}
	for name := range seen {
		if strings.HasPrefix(name, "X-Amz-") || name == "Authorization" {
			t.Errorf("another origin gets %s", name)
		}
	}
}

func TestRedirectsOfS3ComeToAnEnd(t *testing.T) {
	var requests atomic.Int64
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	})
	_, err := b.get(t.Context(), &object{name: "x", size: 1, etag: `"e"`}, 0, 1)
	if err == nil || !strings.Contains(err.Error(), "another address") ||
		requests.Load() != mostRedirects+1 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

func TestListingsOfS3ThatCannotBeRightAreRefused(t *testing.T) {
	item := func(key, size string) string {
		return "<Contents><Key>" + key + "</Key><Size>" + size + "</Size><ETag>e</ETag></Contents>"
	}
	for name, body := range map[string]string{
		"no XML":                "not XML",
		"a page of the web":     "<html><body>hello</body></html>",
		"a key from elsewhere":  "<ListBucketResult>" + item("n/x", "1") + "</ListBucketResult>",
		"a folder of elsewhere": "<ListBucketResult><CommonPrefixes><Prefix>n/</Prefix></CommonPrefixes></ListBucketResult>",
		"a negative size":       "<ListBucketResult>" + item("m/x", "-1") + "</ListBucketResult>",
		"a size that is none":   "<ListBucketResult>" + item("m/x", "many") + "</ListBucketResult>",
		"half a page":           "<ListBucketResult>" + item("m/x", "1"),
	} {
		b := fakeS3(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		if l, err := b.list(t.Context(), ".", 10); err == nil {
			t.Errorf("%s: %v", name, l)
		}
	}
}

func TestHostileNamesInListingsOfS3AreLeftOut(t *testing.T) {
	keys := []string{"m/", "m/..", "m/.", "m/a%0Ab", "m/a%00", "m/%FF", "m/a%5Cb", "m//", "m/ok",
		"m/ok",
		"m/" + strings.Repeat("x", 300), "m/last+one%2B"}
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<ListBucketResult><EncodingType>url</EncodingType>")
		for _, k := range keys {
			fmt.Fprintf(w,
				"<Contents><Key>%s</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>", k)
		}
		fmt.Fprint(w, "<CommonPrefixes><Prefix>m//</Prefix></CommonPrefixes>"+
			"<CommonPrefixes><Prefix>m/../</Prefix></CommonPrefixes>"+
			"<CommonPrefixes><Prefix>m/ok/</Prefix>"+
			"</CommonPrefixes><CommonPrefixes><Prefix>m/sub/</Prefix></CommonPrefixes>"+
			"</ListBucketResult>")
	})
	var log strings.Builder
	b.client.logger = slog.New(slog.NewTextHandler(&log, nil))
	l, err := b.list(t.Context(), ".", 100)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "s3://bucket/m/: 8 names") || strings.Contains(log.String(), "\x00") {
		t.Errorf("the warning is %s", log.String())
	}
	var got []string
	for _, o := range l {
		got = append(got, fmt.Sprint(o.name, o.dir, o.etag))
	}
	if s := strings.Join(got, ", "); s != `okfalse"e", last one+false"e", subtrue` {
		t.Errorf("%s", s)
	}
}

// A server that has ever more pages cannot hold up a listing, nor fill the memory, nor make it look
// as if there were no objects.
func TestEndlessListingsOfS3End(t *testing.T) {
	for name, next := range map[string]func(n int64) string{
		"new tokens":     func(n int64) string { return fmt.Sprint("token", n) },
		"the same token": func(int64) string { return "token" },
	} {
		var requests atomic.Int64
		b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
			n := requests.Add(1)
			fmt.Fprintf(w,
				"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%s"+
					"</NextContinuationToken><Contents><Key>m/a\\%d</Key><Size>1</Size></Contents>"+
					"</ListBucketResult>",
				next(n), n)
		})
		if l, err := b.list(t.Context(), ".", 50); err == nil || requests.Load() > 50 {
			t.Errorf("%s: %v, %v after %d requests", name, l, err, requests.Load())
		}
	}
}

// Amazon refuses what is signed otherwise than it is sent, so this follows its rules for addresses.
func TestListingsAreAskedForWithAllParameters(t *testing.T) {
	var asked url.Values
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query()
		fmt.Fprint(w, onePage)
	})
	b.payer = "requester"
	if _, err := b.list(t.Context(), "sub", 10); err == nil {
		t.Error("a key outside of the folder")
	}
	want := url.Values{"list-type": {"2"}, "delimiter": {"/"}, "prefix": {"m/sub/"},
		"encoding-type": {"url"}, "max-keys": {"1000"}}
	if asked.Encode() != want.Encode() {
		t.Errorf("asked for %s", asked.Encode())
	}
}

func TestAListingThatIsGivenUpEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := fakeS3(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		failing(503, "SlowDown", "", "Retry-After", "3600")(w, r)
	})
	if _, err := b.list(ctx, ".", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
