package remote

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// https is a folder of a web server. Objects are pinned by their ETag, or else by the time of their
// last change and their size.
type https struct {
	base   *url.URL // with a slash at its end
	single string   // file that is wanted; empty: the whole folder
	auth   string   // value of the header Authorization; empty: none
	client *client
}

// openHTTPS opens https://host/folder/. The user and the password are in ~/.netrc.
func openHTTPS(_ context.Context, a address, c *client) (backend, error) {
	base, err := folderURL(a)
	if err != nil {
		return nil, err
	}
	h := &https{base: base, single: a.single, client: c}
	user, password, ok, err := netrc(base.Hostname())
	if err != nil || !ok {
		return h, err
	}
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	keepSecret(password)
	keepSecret(pair)
	h.auth = "Basic " + pair
	if base.Scheme == "http" {
		c.logger.Warn("the password goes over the network in the clear: use https://",
			"host", base.Hostname())
	}
	return h, nil
}

// folderURL reads the address of a folder. Every user of this machine can see it in the list of
// processes, so it must not have a credential.
func folderURL(a address) (*url.URL, error) {
	host, _, _ := strings.Cut(a.rest, "/")
	const seen = "which every user of this machine would see: "
	const instead = "put the user and the password into ~/.netrc: " +
		"machine HOST login USER password PASSWORD"
	switch {
	case strings.Contains(host, "@"):
		return nil, errors.New("the address has a user name, " + seen + instead)
	case strings.ContainsAny(a.rest, "?#"):
		return nil, errors.New("the address has a query, " + seen +
			"leave out the ? and what follows; " + instead)
	}
	u, err := url.Parse(a.scheme + "://" + a.rest)
	if err != nil || u.Hostname() == "" || !isPort(u.Port()) {
		return nil, fmt.Errorf("%s is not the address of a folder: give %s://HOST/FOLDER/",
			Shown(a.scheme+"://"+a.rest), a.scheme)
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return u, nil
}

// isPort reports whether an address may have this port. Without one it has that of its scheme.
func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil
}

func (h *https) name() string { return h.base.String() }
func (h *https) public() bool { return h.auth == "" }
func (h *https) download() source.Download {
	return source.Download{Command: "wget --recursive --no-parent " + h.name()}
}

// at returns the address of a name below the folder.
func (h *https) at(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return h.base.String() + strings.Join(parts, "/")
}

// ask sends a request and follows redirects.
func (h *https) ask(ctx context.Context, address string, header http.Header) (
	*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, clean(err)
	}
	r.Header = header
	if h.auth != "" {
		r.Header.Set("Authorization", h.auth)
	}
	return h.client.follow(r)
}

// get asks for bytes of one version. Not all servers know the conditions, so the answer is compared
// too.
func (h *https) get(ctx context.Context, o *object, off, n int64) (*http.Response, error) {
	header := http.Header{"Range": {rangeOf(off, n)}}
	o.condition(header)
	a, err := h.ask(ctx, h.at(o.name), header)
	if err != nil {
		return nil, err
	}
	if err = statusError(a); err != nil {
		return nil, err
	}
	if err = o.compareWeak(a.Header); err != nil {
		a.Body.Close()
		return nil, err
	}
	return a, nil
}

// list lists a folder: by the page that the server has for it, or else by the usual names.
func (h *https) list(ctx context.Context, folder string, most int) ([]object, error) {
	entries, listed, err := h.index(ctx, folder)
	if err != nil {
		return nil, err
	}
	var objects []object
	switch {
	case len(entries) > min(most, mostFiles):
		return nil, tooLarge("%d files", min(most, mostFiles))
	case folder != "." && !listed:
		return nil, source.ErrMissing
	case listed && (folder != "." || hasModel(entries, h.single)):
		objects, err = h.pinAll(ctx, entries, naming{listed: true})
	default:
		if objects, err = h.probe(ctx); err == nil && len(objects) > 0 {
			h.client.logger.Warn("the server lists no files: only those with usual names are shown")
		}
	}
	if err != nil {
		return nil, err
	}
	return objects, h.usable(folder, objects)
}

// index reads the page of a folder. A server without one is not an error.
func (h *https) index(ctx context.Context, folder string) (list []entry, listed bool, err error) {
	address := h.base.String()
	if folder != "." {
		address = h.at(folder) + "/"
	}
	var page []byte
	err = insist(ctx, mostDoubts, isDoubtful, func() error {
		return persist(ctx, func() (err error) {
			page, listed, err = h.page(ctx, address)
			return err
		})
	})
	switch {
	case hasStatus(err, http.StatusUnauthorized),
		folder != "." && errors.As(err, new(*errStatus)): // the folder is there, since it is listed
		return nil, false, h.explain(err)
	case errors.As(err, new(*errStatus)):
		return nil, false, nil // the server has no page for folders
	case len(page) > mostIndex:
		return nil, false, tooLarge("a page of %d bytes", mostIndex)
	}
	if err != nil {
		return nil, false, bareError(err)
	}
	list = indexEntries(string(page))
	for i := range list {
		list[i].name = path.Join(folder, list[i].name)
	}
	return list, listed, nil
}

// page asks for the page of a folder once. A status that is not an error means that there is none.
func (h *https) page(ctx context.Context, address string) (page []byte, listed bool, err error) {
	a, err := h.ask(ctx, address, http.Header{"Accept": {"text/html"}})
	if err != nil {
		return nil, false, err
	}
	defer a.Body.Close()
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	switch {
	case a.StatusCode == http.StatusOK && kind == "text/html":
	case a.StatusCode == http.StatusUnauthorized, a.StatusCode == http.StatusForbidden,
		a.StatusCode == http.StatusTooManyRequests, a.StatusCode >= 500:
		return nil, false, statusError(a)
	default:
		return nil, false, nil
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, false, &delay{err: fmt.Errorf("%w: it is compressed (Content-Encoding %q)",
			errAnswer, e)}
	}
	page, err = io.ReadAll(io.LimitReader(a.Body, mostIndex+1))
	if err == nil && len(page) <= mostIndex && isCutShort(string(page)) {
		err = fmt.Errorf("%w: its page ends in the middle", errAnswer)
	}
	if err != nil {
		return nil, false, &delay{err: clean(err)}
	}
	return page, true, nil
}

// bareError removes the address from an error, if the message has it anyway.
func bareError(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}

// tooLarge refuses a folder that has more than a checkpoint may have.
func tooLarge(format string, most int) error {
	return fmt.Errorf("%w: more than "+format+": it is not a checkpoint's folder",
		source.ErrTooMany, most)
}

// hasModel reports whether a page names a model. Many servers answer with a page of another kind.
func hasModel(list []entry, single string) bool {
	return slices.ContainsFunc(list, func(e entry) bool {
		return e.name == single || single == "" && (e.name == "config.json" ||
			e.name == "params.json" || strings.HasSuffix(e.name, ".safetensors"))
	})
}

// usable refuses a folder without files, and one whose server sends whole files only.
func (h *https) usable(folder string, objects []object) error {
	if folder != "." {
		return nil
	}
	if len(objects) == 0 {
		return fmt.Errorf("%w: the server lists no files there, and has none of the usual names: "+
			"name the folder that has config.json", source.ErrMissing)
	}
	var whole error
	for _, o := range objects {
		switch {
		case errors.Is(o.refused, errNoRanges):
			whole = o.refused
		case o.size > 1:
			return nil // the server has ranges
		}
	}
	if whole == nil {
		return nil
	}
	return fmt.Errorf("%w: download it (%s) and name the folder, or use a server with ranges, "+
		"such as nginx", whole, h.download().Command)
}

// explain adds the way out to a status that concerns the whole server.
func (h *https) explain(err error) error {
	if hasStatus(err, http.StatusBadRequest) && h.base.Scheme == "http" {
		return fmt.Errorf("if the server speaks TLS, use https://: %w", err)
	}
	if !hasStatus(err, http.StatusUnauthorized) && !hasStatus(err, http.StatusForbidden) {
		return err
	}
	file := cmp.Or(netrcFile(), "~/.netrc")
	way := "if you have a password, put \"machine " + h.base.Hostname() +
		" login USER password PASSWORD\" into " + file
	if h.auth != "" {
		way = "correct the user or the password in " + file
	}
	return fmt.Errorf("it may not be read: %s: %w", way, unpinned(err))
}
