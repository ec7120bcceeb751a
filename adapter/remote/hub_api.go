package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Bounds of the Hub's answers.
const (
	mostPages = 400 // of a listing
	apiTries  = 3
)

// info is what the Hub tells about a repository at a revision.
type info struct {
	ID       string    `json:"id"`
	SHA      string    `json:"sha"`
	Private  *bool     `json:"private"`
	Gated    any       `json:"gated"` // false, "auto" or "manual"
	Modified time.Time `json:"lastModified"`
}

// public reports whether everybody may read the repository.
func (i *info) public() bool {
	return i.Private != nil && !*i.Private && i.Gated == false
}

// send asks the endpoint. It follows redirects within the endpoint, such as that of a repository
// with a new name. If the answer leads to another host, away is the place. The headers of the
// answer are completed with those of the redirects before.
func (h *hub) send(ctx context.Context, address string, t token, span string) (
	a *http.Response, away *place, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, clean(err)
	}
	passed := http.Header{}
	for range mostRedirects {
		if a, err = h.ask(r, t, span); err != nil {
			return nil, nil, err
		}
		complete(a.Header, passed)
		next, err := redirect(a)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("%s: %w", h.endpoint, err)
		case next == nil || origin(next.url) != h.origin:
			return a, next, nil
		}
		passed = a.Header
		if r, err = next.request(ctx, http.MethodGet); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%s redirects more than %d times", h.endpoint, mostRedirects)
}

// ask sends one request to the endpoint. Nothing else sends the token.
func (h *hub) ask(r *http.Request, t token, span string) (*http.Response, error) {
	if wait := h.busy(); wait > 0 {
		return nil, &delay{h.limited(wait, t), wait, true}
	}
	if origin(r.URL) != h.origin {
		return nil, fmt.Errorf("%s refers to another host", h.endpoint)
	}
	if t.text != "" {
		r.Header.Set("Authorization", "Bearer "+t.text)
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	a, err := h.client.do(r)
	if err != nil && r.Context().Err() == nil {
		return nil, h.unreachable(err)
	}
	return a, err
}

// kept are the headers that the Hub may send with a redirect only.
var kept = []string{"X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size"}

// complete adds headers of a redirect to those of the answer that it led to.
func complete(to, from http.Header) {
	for _, name := range kept {
		if to.Get(name) == "" && from.Get(name) != "" {
			to.Set(name, from.Get(name))
		}
	}
}

// fetch reads an answer of the API, and asks again if it may pass. It returns the next page's
// address, if there is one, and the bytes of this one.
func (h *hub) fetch(ctx context.Context, address string, most int64, into any) (
	next string, n int64, err error) {
	err = insist(ctx, apiTries, mayPassSoon, func() (err error) {
		next, n, err = h.fetchOnce(ctx, address, most, into)
		return err
	})
	return next, n, err
}

// longestAPIWait is how long an answer of the API is waited for. A longer wait is left to the user.
const longestAPIWait = 10 * time.Second

// mayPassSoon reports whether a request is worth sending again after a short wait.
func mayPassSoon(err error) bool {
	var d *delay
	return errors.As(err, &d) && d.after <= longestAPIWait
}

func (h *hub) fetchOnce(ctx context.Context, address string, most int64, into any) (
	next string, n int64, err error) {
	t, err := hubToken()
	if err != nil {
		return "", 0, err
	}
	r, away, err := h.send(ctx, address, t, "")
	switch {
	case err != nil:
		return "", 0, err
	case away != nil:
		return "", 0, fmt.Errorf("%s redirects to %s: set HF_ENDPOINT to the host that answers",
			h.endpoint, away.url.Host)
	case r.StatusCode != http.StatusOK:
		return "", 0, h.refused(r, t)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	switch {
	case err != nil:
		return "", 0, h.unreachable(err)
	case int64(len(text)) > most:
		return "", 0, fmt.Errorf("an answer of %s has more than %d bytes", h.endpoint, most)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return "", 0, &delay{err: fmt.Errorf("an answer of %s is not what the Hub sends (%w): "+
			"is HF_ENDPOINT right?", h.endpoint, err)}
	}
	next, err = nextPage(r)
	return next, int64(len(text)), err
}

// nextPage reads the address of the next page from the header Link.
func nextPage(r *http.Response) (string, error) {
	for _, link := range strings.Split(strings.Join(r.Header.Values("Link"), ","), ",") {
		target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
		target, ok2 := strings.CutPrefix(target, "<")
		if !ok || !ok2 || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
			continue
		}
		u, err := r.Request.URL.Parse(target)
		if err != nil {
			return "", errors.New("the next page of the listing has no address")
		}
		return u.String(), nil
	}
	return "", nil
}

// repo asks for the commit of the revision, and for the repository's name and access.
func (h *hub) repo(ctx context.Context) (*info, error) {
	i := &info{}
	address := h.api("revision", h.at.at())
	_, _, err := h.fetch(ctx, address, mostListing, i)
	switch {
	case errors.Is(err, errRevision):
		return nil, h.missingRevision(ctx)
	case err != nil:
		return nil, err
	case !gitID.MatchString(i.SHA):
		return nil, fmt.Errorf("%s does not tell the commit of %s (sha %q): is HF_ENDPOINT right?",
			h.endpoint, h.repository(), i.SHA)
	case gitID.MatchString(h.at.revision) && i.SHA != h.at.revision:
		return nil, fmt.Errorf("%s has commit %s instead of %s", h.endpoint, i.SHA, h.at.revision)
	}
	return i, nil
}

// api is the address of something about the repository at a revision.
func (h *hub) api(what, revision string) string {
	return h.endpoint + "/api/models/" + h.at.id + "/" + what + "/" + url.PathEscape(revision)
}

// tree lists the whole repository at the pinned commit.
func (h *hub) tree(ctx context.Context, i *info) (*tree, error) {
	t := newTree(i.Modified)
	asked := map[string]bool{}
	left := int64(mostListing)
	for next := h.api("tree", h.commit) + "?recursive=true"; next != ""; {
		if asked[next] || len(asked) == mostPages {
			return nil, fmt.Errorf("the listing of %s does not end: %d pages", h.repository(),
				len(asked))
		}
		asked[next] = true
		var page []treeEntry
		following, n, err := h.fetch(ctx, next, left, &page)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if err := t.add(&page[i]); err != nil {
				return nil, fmt.Errorf("the listing of %s cannot be trusted: %w", h.repository(),
					err)
			}
		}
		next, left = following, left-n
	}
	return t, nil
}

// refs is the branches and tags of a repository.
type refs struct {
	Branches, Tags []struct{ Name string }
}

const namedRefs = 8 // in a message

// missingRevision is about a revision that the repository does not have. It names some that it has.
func (h *hub) missingRevision(ctx context.Context) error {
	text := fmt.Sprintf("%s has no revision %q", h.at.id, h.at.at())
	var all refs
	address := h.endpoint + "/api/models/" + h.at.id + "/refs"
	if _, _, err := h.fetch(ctx, address, mostListing, &all); err == nil {
		var names []string
		for _, r := range append(all.Branches, all.Tags...) {
			if isRevision(r.Name) && len(names) < namedRefs {
				names = append(names, r.Name)
			}
		}
		if len(names) > 0 {
			text += ", but " + strings.Join(names, ", ")
		}
	}
	text += ": write one after @, or leave it out for main"
	if h.at.folder != "" {
		text += "; write %2F for a slash in the name of a branch"
	}
	return &said{source.ErrMissing, text}
}
