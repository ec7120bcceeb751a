package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// hub is a repository of the Hugging Face Hub, at a commit.
//
// Its files are listed by the API with their sizes and hashes, so opening needs no request for each
// of them. A large file is on another host. The endpoint is asked once for its signed address. The
// API can also send the headers of all shards, but parsed. Its answer does not show that they have
// the bytes of the files, so headers are read from the files.
type hub struct {
	client   *client
	endpoint string // without a slash at its end
	origin   string // of the endpoint; only it gets the token
	at       repository
	commit   string
	everyone bool // may read it
	folders  map[string][]object

	mu        sync.Mutex
	until     time.Time // before which the endpoint wants no requests
	locations map[string]*location
}

// openHub finds the commit of a revision, and lists its files.
func openHub(ctx context.Context, a address, c *client) (backend, error) {
	at, err := parseRepository(a.rest)
	if err != nil {
		return nil, err
	}
	h, err := newHub(at, c)
	if err != nil {
		return nil, err
	}
	i, err := h.repo(ctx)
	if err != nil {
		return nil, err
	}
	h.commit = i.SHA
	if isRepositoryID(i.ID) && i.ID != h.at.id {
		h.client.logger.Warn(fmt.Sprintf("hf://%s has a new name: use hf://%s", h.at.id, i.ID))
		h.at.id = i.ID
	}
	t, err := hubToken()
	if err != nil {
		return nil, err
	}
	h.everyone = t.text == "" || i.public()
	if t.text != "" && h.inClear() {
		h.client.logger.Warn(fmt.Sprintf("the token is sent to %s without encryption: "+
			"set HF_ENDPOINT to an https address", h.endpoint))
	}
	return h, h.listAll(ctx, i)
}

func newHub(at repository, c *client) (*hub, error) {
	endpoint, err := endpointFromEnv()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	return &hub{client: c, endpoint: endpoint, origin: origin(u), at: at,
		locations: map[string]*location{}}, nil
}

// inClear reports whether other machines of a network could read what is sent to the endpoint.
func (h *hub) inClear() bool {
	u, err := url.Parse(h.endpoint)
	return err == nil && u.Scheme == "http" && !isPrivateHost(u.Hostname())
}

// listAll lists the files at the commit.
func (h *hub) listAll(ctx context.Context, i *info) error {
	t, err := h.tree(ctx, i)
	if err != nil {
		return err
	}
	root := cmp.Or(h.at.folder, ".")
	switch t.kinds[root] {
	case "directory":
	case "file":
		return fmt.Errorf("%s: %q is a file, but no shard: name its folder, or a .safetensors file",
			h.repository(), root)
	default:
		return &said{source.ErrMissing, fmt.Sprintf("%s has no folder %q: name one that "+
			"has config.json; a revision is written after @", h.repository(), root)}
	}
	h.folders = t.below(root)
	if h.endpoint != hubEndpoint {
		h.markVersions()
	}
	return nil
}

// markVersions tells versions of a mirror from those of the Hub, since the mirror might lie.
func (h *hub) markVersions() {
	for _, l := range h.folders {
		for i := range l {
			l[i].version += " " + h.endpoint
		}
	}
}

func (h *hub) name() string {
	name := "hf://" + h.at.id + "@" + h.commit
	if h.at.folder != "" {
		name += "/" + h.at.folder
	}
	return name
}

func (h *hub) public() bool { return h.everyone }

func (h *hub) download() source.Download {
	return source.Download{Command: "hf download " + h.at.id + " --revision " + h.commit}
}

// repository names the repository in messages.
func (h *hub) repository() string { return h.at.String() }

// page is the address of the repository's page.
func (h *hub) page() string { return h.endpoint + "/" + h.at.id }

func (h *hub) list(_ context.Context, folder string, most int) ([]object, error) {
	l, ok := h.folders[folder]
	if !ok {
		return nil, source.ErrMissing
	}
	return l[:min(len(l), most)], nil
}

// busy returns how long the endpoint wants no requests.
func (h *hub) busy() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(time.Until(h.until), 0)
}

// mostQuiet is how long a single answer can keep requests away from the endpoint. The Hub counts
// them for five minutes.
const mostQuiet = 10 * time.Minute

// quiet remembers that the endpoint wants no requests for a while.
func (h *hub) quiet(wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(min(wait, mostQuiet)); until.After(h.until) {
		h.until = until
	}
}

// location returns where the content of an object is.
func (h *hub) location(o *object) *location {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.locations[o.name]
	if l == nil {
		l = &location{direct: o.sha256 == ""}
		h.locations[o.name] = l
	}
	return l
}

// get reads a range from the signed address of a file. An address that is refused is renewed once.
func (h *hub) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	l := h.location(o)
	for renewed := false; ; renewed = true {
		f, err := h.resolve(ctx, l, o, off, n)
		if err != nil || f.answer != nil {
			return f.answer, err
		}
		signed := f.signed
		a, err := h.data(ctx, signed, rangeOf(off, n))
		switch {
		case err != nil:
			return nil, err
		case !isRefused(a.StatusCode):
			return h.compared(a, l, signed)
		case !renewed && l.expired(signed, time.Now()):
			_, _ = io.CopyN(io.Discard, a.Body, mostBody) // so that the connection is used again
			_ = a.Body.Close()
			continue
		case renewed:
			l.inVain(time.Now())
		}
		status := &errStatus{a.StatusCode, excerpt(a)}
		err = fmt.Errorf("%s: %w", signed.url.Host, status)
		return nil, &delay{err, retryAfter(a.Header), false}
	}
}

// isRefused reports whether a status may mean that a signed address has expired.
func isRefused(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return true
	}
	return false
}

// compared compares the ETag of an answer of the data host with that of its first one. The listing
// does not tell it. The first answer of a shard is its header, which is checked by itself.
func (h *hub) compared(a *http.Response, l *location, signed *place) (*http.Response, error) {
	if err := statusError(a); err != nil {
		return nil, err
	}
	if err := l.pin(origin(signed.url), a.Header.Get("ETag")); err != nil {
		_ = a.Body.Close()
		return nil, err
	}
	return a, nil
}

// data asks the data host, which never gets the token.
func (h *hub) data(ctx context.Context, to *place, span string) (*http.Response, error) {
	for range mostRedirects {
		r, err := to.request(ctx, http.MethodGet)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Range", span)
		a, err := h.client.do(r)
		if err != nil {
			return nil, err
		}
		next, err := redirect(a)
		if next == nil || err != nil {
			return a, err
		}
		to = next
	}
	return nil, fmt.Errorf("%s redirects more than %d times", to.url.Host, mostRedirects)
}

// found is what the endpoint answers about a file: its signed address, or the bytes.
type found struct {
	signed *place
	until  time.Time // when signed is to be renewed
	answer *http.Response
}

// resolve finds the signed address of a file. Readers who need it at the same time ask once. If the
// endpoint sends the bytes itself, each asks for its own.
func (h *hub) resolve(ctx context.Context, l *location, o *object, off, n int64) (found, error) {
	for {
		signed, direct := l.known(time.Now())
		if signed != nil {
			return found{signed: signed}, nil
		}
		if direct {
			f, err := h.locate(ctx, o, off, n)
			l.keep(f, err)
			return f, err
		}
		q, first := l.ask()
		if first {
			f, err := h.locate(ctx, o, off, n)
			q.left = ctx.Err() != nil
			l.answer(q, f, err)
			return f, err
		}
		select {
		case <-ctx.Done():
			return found{}, ctx.Err()
		case <-q.done:
		}
		if !q.left && (q.err != nil || q.signed != nil) {
			return found{signed: q.signed}, q.err
		}
	}
}

// locate asks the endpoint for a range of a file. The answer must be about the file that was
// listed.
func (h *hub) locate(ctx context.Context, o *object, off, n int64) (f found, err error) {
	t, err := hubToken()
	if err != nil {
		return f, err
	}
	a, signed, err := h.send(ctx, h.address(o), t, rangeOf(off, n))
	if err != nil {
		return f, err
	}
	if signed == nil && a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent {
		return f, h.refused(a, t)
	}
	if err := h.same(a, o, signed != nil); err != nil {
		_ = a.Body.Close()
		return f, err
	}
	if signed == nil {
		return found{answer: cutOut(a, o, off, n)}, nil
	}
	server, _ := http.ParseTime(a.Header.Get("Date")) // without it the local clock counts
	return found{signed: signed, until: renewal(signed.url, server, time.Now())}, nil
}

// address is that of a file at the endpoint.
func (h *hub) address(o *object) string {
	name := o.name
	if h.at.folder != "" {
		name = h.at.folder + "/" + name
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return h.endpoint + "/" + h.at.id + "/resolve/" + h.commit + "/" + strings.Join(parts, "/")
}

// same compares an answer of the endpoint about a file with the listing. The range of an answer
// with bytes is compared by the fetcher.
func (h *hub) same(a *http.Response, o *object, away bool) error {
	want, _, _ := strings.Cut(o.version, " ")
	got := a.Header.Get
	checks := []struct {
		header, got, want string
		needed            bool
	}{
		{"X-Repo-Commit", got("X-Repo-Commit"), h.commit, true},
		{"X-Linked-Etag", plainETag(cmp.Or(got("X-Linked-Etag"), got("ETag"))), want, true},
		{"X-Linked-Size", got("X-Linked-Size"), fmt.Sprint(o.size), away},
	}
	for _, c := range checks {
		switch {
		case c.got == c.want:
		case c.got != "":
			return fmt.Errorf("%w: %s is %s, and was %s", source.ErrChanged, c.header,
				oneLine(c.got), c.want)
		case c.needed:
			return fmt.Errorf("%w: %s does not send %s: set HF_ENDPOINT to a mirror that does, "+
				"or unset it", errAnswer, h.endpoint, c.header)
		}
	}
	return nil
}

// plainETag takes an ETag out of its quotes.
func plainETag(s string) string { return strings.Trim(strings.TrimPrefix(s, "W/"), `"`) }

const mostWhole = 64 << 20 // bytes of a file of which the endpoint may send more than was asked for

// cutOut cuts the range out of an answer that has a whole small file. Other answers stay.
func cutOut(a *http.Response, o *object, off, n int64) *http.Response {
	whole := a.StatusCode == http.StatusOK && a.ContentLength == o.size && o.size <= mostWhole &&
		a.Header.Get("Content-Encoding") == ""
	if !whole || n == o.size {
		return a
	}
	a.StatusCode, a.ContentLength = http.StatusPartialContent, n
	a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, o.size))
	a.Header.Del("Content-Length")
	a.Body = &cut{a.Body, off, n}
	return a
}

// cut is a range of a body.
type cut struct {
	io.ReadCloser
	skip, left int64
}

func (c *cut) Read(p []byte) (int, error) {
	if c.skip > 0 {
		n, err := io.CopyN(io.Discard, c.ReadCloser, c.skip)
		if c.skip -= n; err != nil {
			return 0, io.ErrUnexpectedEOF
		}
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
