package remote

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestNamesOfRepositories(t *testing.T) {
	for _, c := range []struct {
		name string
		want repository
	}{
		{"hf://org/name", repository{id: "org/name"}},
		{"hf://org/name/", repository{id: "org/name"}},
		{"hf://models/org/name", repository{id: "org/name"}},
		{"hf://Qwen/Qwen3-0.6B_x", repository{id: "Qwen/Qwen3-0.6B_x"}},
		{"hf://org/name@v1.0", repository{"org/name", "v1.0", ""}},
		{"hf://org/name@v1/a/b", repository{"org/name", "v1", "a/b"}},
		{"hf://org/name/a/b", repository{"org/name", "", "a/b"}},
		{"hf://org/name/a@b", repository{"org/name", "", "a@b"}},
		{"hf://org/name@feature%2Fx", repository{"org/name", "feature/x", ""}},
		{"hf://org/name@refs/pr/12", repository{"org/name", "refs/pr/12", ""}},
		{"hf://org/name@refs/pr/12/a", repository{"org/name", "refs/pr/12", "a"}},
		{"hf://org/name@refs%2Fpr%2F12", repository{"org/name", "refs/pr/12", ""}},
		{"hf://org/name@refs/convert/x-1/a", repository{"org/name", "refs/convert/x-1", "a"}},
		{"https://huggingface.co/org/name", repository{id: "org/name"}},
		{"https://huggingface.co/org/name/", repository{id: "org/name"}},
		{"https://huggingface.co/org/name?library=x#top", repository{id: "org/name"}},
		{"https://www.huggingface.co/org/name", repository{id: "org/name"}},
		{"https://hf.co/org/name/tree/main", repository{"org/name", "main", ""}},
		{"https://huggingface.co/org/name/tree/refs%2Fpr%2F1/a%20b", repository{"org/name", "refs/pr/1", "a b"}},
		{"https://huggingface.co/org/name/tree/refs/pr/1/a%20b", repository{"org/name", "refs/pr/1", "a b"}},
		{"https://huggingface.co/org/name/tree/x%2Fy/a%2520", repository{"org/name", "x/y", "a%20"}},
	} {
		name, err := hubName(c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		rest, ok := strings.CutPrefix(name, "hf://")
		if got, err := parseRepository(rest); !ok || err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func TestNamesThatAreNotModelsAreRefused(t *testing.T) {
	for name, want := range map[string]string{
		"hf://":                                     "is not the name of a model",
		"hf://name":                                 "is not the name of a model",
		"hf://org/":                                 "is not the name of a model",
		"hf://org/a--b":                             "is not the name of a model",
		"hf://org/../x":                             "is not the name of a model",
		"hf://../org":                               "is not the name of a model",
		"hf://org/na me":                            "is not the name of a model",
		"hf://user:pw@org/name":                     "is not the name of a model",
		"hf://org/name@":                            "without a revision",
		"hf://org/name@../..":                       "is not a revision",
		"hf://org/name@%2e%2e%2fapi":                "is not a revision",
		"hf://org/name@a%0ab":                       "is not a revision",
		"hf://org/name@a b":                         "is not a revision",
		"hf://org/name@%zz":                         "is not a revision",
		"hf://org/name/a/../b":                      "is not a folder",
		"hf://org/name//a":                          "is not a folder",
		"hf://datasets/org/name":                    "it is a dataset: only models",
		"hf://spaces/org/name":                      "is a Space: only models",
		"https://huggingface.co":                    "",
		"https://huggingface.co/":                   "is not the page of a model",
		"https://huggingface.co/org":                "is not the page of a model",
		"https://huggingface.co/datasets/org/name":  "is the page of a dataset",
		"https://huggingface.co/org/name/tree":      "is not the page of a model",
		"https://huggingface.co/org/name/commits/x": "is not the page of a model",
		"https://huggingface.co.evil.org/org/name":  "",
		"https://example.org/org/name/tree/main":    "",
	} {
		page, err := hubName(name)
		if want == "" {
			if err != nil || page != name {
				t.Errorf("%s is taken for a page of the Hub: %s, %v", name, page, err)
			}
			continue
		}
		if err == nil {
			_, err = parseRepository(strings.TrimPrefix(page, "hf://"))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestRevisionsAreWrittenAsTheyAreRead(t *testing.T) {
	for _, revision := range []string{
		"main", "v1.0", "refs/pr/1", "feature/x", "a/b/c", "100%", "refs/x/1", "é#@1",
	} {
		r := repository{id: "o/n", revision: revision}
		got, err := parseRepository(strings.TrimPrefix(r.String(), "hf://"))
		if err != nil || got != r {
			t.Errorf("%s: %+v, %v", r, got, err)
		}
	}
}

func infoOf(t *testing.T, text string) *info {
	t.Helper()
	var i info
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatal(err)
	}
	return &i
}

func TestExpiriesOfSignedAddresses(t *testing.T) {
	policy := base64.StdEncoding.EncodeToString([]byte(
		`{"Statement":[{"Resource":"*","Condition":{"DateLessThan":{"AWS:EpochTime":1767229200}}}]}`))
	policy = strings.NewReplacer("+", "-", "=", "_", "/", "~").Replace(policy)
	at := func(s string) time.Time {
		end, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	for query, want := range map[string]time.Time{
		"":                            {},
		"X-Amz-Date=20260101T000000Z": {},
		"X-Amz-Expires=3600":          {},
		"Expires=soon":                {},
		"Expires=-1":                  {},
		"Policy=e30_":                 {},
		"Policy=%zz":                  {},
		"se=2026":                     {},
		"X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600":   at("2026-01-01T01:00:00Z"),
		"X-Goog-Date=20260101T000000Z&X-Goog-Expires=3600": at("2026-01-01T01:00:00Z"),
		"Expires=1767229200&Signature=x&Key-Pair-Id=y":     at("2026-01-01T01:00:00Z"),
		"Policy=" + policy:                  at("2026-01-01T01:00:00Z"),
		"se=2026-01-01T01%3A00%3A00Z&sig=x": at("2026-01-01T01:00:00Z"),
		"X-Amz-Date=20260101T000000Z&X-Amz-Expires=7200&Expires=1767229200": at("2026-01-01T01:00:00Z"),
	} {
		q, _ := url.ParseQuery(query) // what can be read is read
		if got := expiry(q); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}

// An address is renewed a minute before it expires by the server's clock, which may differ.
func TestAddressesAreRenewedByTheClockOfTheServer(t *testing.T) {
	now := time.Date(2027, 5, 1, 12, 0, 0, 0, time.UTC)
	server := time.Date(2026, 1, 1, 0, 10, 0, 0, time.UTC)
	for _, c := range []struct {
		query  string
		server time.Time
		want   time.Duration
	}{
		{"X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600", server, 49 * time.Minute},
		{"X-Amz-Date=20260101T001000Z&X-Amz-Expires=10", server, 9 * time.Second},
		{"X-Amz-Date=20260101T000000Z&X-Amz-Expires=60", server, 9 * time.Minute},
		{"X-Amz-Date=20270501T120000Z&X-Amz-Expires=3600", time.Time{}, 59 * time.Minute},
		{"", server, 9 * time.Minute},
	} {
		u := &url.URL{Scheme: "https", Host: "h", RawQuery: c.query}
		got := renewal(u, c.server, now).Sub(now)
		if got != c.want {
			t.Errorf("%s: after %v, want %v", c.query, got, c.want)
		}
	}
}

func TestWaitsOfTheHub(t *testing.T) {
	for _, c := range []struct {
		header, value string
		want          time.Duration
	}{
		{"", "", 0},
		{"RateLimit", `"api";r=0;t=55`, 55 * time.Second},
		{"RateLimit", `"resolvers"; r = 0 ; t = 290`, 290 * time.Second},
		{"RateLimit", `"api";r=12;t=55`, 0},
		{"RateLimit", `"api";t=7`, 7 * time.Second},
		{"RateLimit", `"api";r=0;t=never`, 0},
		{"RateLimit", `"api";r=0;t=-5`, 0},
		{"Retry-After", "9", 9 * time.Second},
	} {
		h := http.Header{}
		if c.header != "" {
			h.Set(c.header, c.value)
		}
		if got := hubWait(h); got != c.want {
			t.Errorf("%s: %s gives %v, want %v", c.header, c.value, got, c.want)
		}
	}
}
