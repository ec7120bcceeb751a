package remote

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// page is one page of a listing in any format. A page that is other is not a page of a listing.
type page struct {
	names []string
	more  bool
	token string
	other bool
}

// pager answers with pages, in the format of one kind of store.
type pager struct {
	token string // field of the query
	write func(p page) string
	open  func(t *testing.T, url string) (backend, error)
}

var pagers = map[string]pager{
	"s3": {"continuation-token", s3Text, func(t *testing.T, url string) (backend, error) {
		noAWS(t)
		setenv(t, "AWS_ENDPOINT_URL", url, "AWS_ACCESS_KEY_ID", "key", "AWS_SECRET_ACCESS_KEY",
			"secret-key", "AWS_REGION", "us-east-1")
		return openS3(t.Context(), address{scheme: "s3", rest: "models/m"}, newClient(Options{}))
	}},
	"gs": {"pageToken", gcsText, func(t *testing.T, url string) (backend, error) {
		t.Setenv("STORAGE_EMULATOR_HOST", url)
		return openGCS(t.Context(), address{scheme: "gs", rest: "models/m"}, newClient(Options{}))
	}},
	"az": {"marker", azureText, func(t *testing.T, url string) (backend, error) {
		noAzure(t)
		t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", url)
		return openAzure(t.Context(), address{scheme: "az", rest: "a/models/m"}, newClient(Options{}))
	}},
}

func s3Text(p page) string {
	text := "<ListBucketResult>"
	for _, n := range p.names {
		text += "<Contents><Key>m/" + xmlText(n) + `</Key><ETag>"1"</ETag><Size>1</Size></Contents>`
	}
	if p.token != "" {
		text += "<NextContinuationToken>" + p.token + "</NextContinuationToken>"
	}
	return fmt.Sprintf("%s<IsTruncated>%t</IsTruncated></ListBucketResult>", text, p.more)
}

func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func gcsText(p page) string {
	var items []string
	for _, n := range p.names {
		items = append(items, fmt.Sprintf(`{"name": %q, "size": "1", "generation": "1"}`, "m/"+n))
	}
	return fmt.Sprintf(`{"kind": "storage#objects", "items": [%s], "nextPageToken": %q}`,
		strings.Join(items, ","), p.token)
}

func azureText(p page) string {
	text := "<EnumerationResults><Blobs>"
	for _, n := range p.names {
		text += blob("m/"+xmlText(n), "1", "0x1", "")
	}
	return text + "</Blobs><NextMarker>" + p.token + "</NextMarker></EnumerationResults>"
}

// serve opens a store whose pages follow from their tokens.
func (g pager) serve(t *testing.T, pages func(token string) page) backend {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := pages(r.URL.Query().Get(g.token))
		if p.other {
			fmt.Fprint(w, map[bool]string{true: "{}", false: "<Error/>"}[g.token == "pageToken"])
			return
		}
		fmt.Fprint(w, g.write(p))
	}))
	t.Cleanup(s.Close)
	b, err := g.open(t, s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A listing that repeats itself, goes on for ever, or breaks off is an error. Files would be missing.
func TestPagesThatDoNotEndAreRefused(t *testing.T) {
	for scheme, g := range pagers {
		for name, pages := range map[string]func(token string) page{
			"the same page": func(string) page {
				return page{names: []string{"a"}, more: true, token: "1"}
			},
			"two empty pages in turn": func(token string) page {
				return page{more: true, token: map[string]string{"1": "2"}[token] + "1"}
			},
			"empty pages for ever": func(token string) page {
				return page{more: true, token: token + "1"}
			},
			"no next page": func(token string) page {
				if scheme != "s3" && token != "" { // the others tell by the token that there is more
					return page{other: true}
				}
				return page{names: []string{"a"}, more: true,
					token: map[bool]string{true: "1"}[scheme != "s3"]}
			},
			"not a page": func(token string) page {
				if token == "" {
					return page{names: []string{"a"}, more: true, token: "1"}
				}
				return page{other: true}
			},
		} {
			t.Run(scheme+"/"+name, func(t *testing.T) {
				l, err := g.serve(t, pages).list(t.Context(), ".", mostObjects)
				if err == nil {
					t.Errorf("the listing has %d objects", len(l))
				}
			})
		}
	}
}

// Names that no file can have count, but they do not push out files without an error.
func TestNamesThatAreLeftOutHideNoFile(t *testing.T) {
	for scheme, g := range pagers {
		t.Run(scheme, func(t *testing.T) {
			b := g.serve(t, func(string) page {
				return page{names: []string{`a\1`, `a\2`, `a\3`, "b", "c"}}
			})
			if l, err := b.list(context.Background(), ".", 6); err != nil || len(l) != 2 {
				t.Errorf("%v (%v)", l, err)
			}
			if l, err := b.list(context.Background(), ".", 4); !errors.Is(err, source.ErrTooMany) {
				t.Errorf("at most 4: %v (%v)", l, err)
			}
		})
	}
}
