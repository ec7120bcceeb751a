package remote

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// mostListing is how many bytes one page of a listing may have.
const mostListing = 64 << 20

// largestObject is more than any store lets an object have. The table of its blocks takes 64 MiB.
const largestObject = 1 << 46

// lister collects the objects of a folder from the pages of an object store. Stores give whole
// names, and the names below other folders end in a slash.
type lister struct {
	under   string // the folder of the source: empty, or with a slash at its end
	most    int
	objects []object
	err     error

	prefix string // of the folder that is listed
	seen   map[string]bool
	tokens map[string]bool // of the pages after the first
	count  int             // of what was added, with what was left out
	left   int             // of names that were left out, since no file can have them
	first  string
}

// in begins with a folder of the source, and returns its prefix in the store.
func (l *lister) in(folder string) string {
	l.prefix, l.seen, l.tokens = l.under, map[string]bool{}, map[string]bool{}
	if folder != "." {
		l.prefix += folder + "/"
	}
	return l.prefix
}

// full reports whether no more objects are wanted. What is left out counts too, so that every
// listing comes to an end.
func (l *lister) full() bool { return l.err != nil || l.count >= l.most }

// mostTurns is how many pages a folder may have.
const mostTurns = 1000

// turn begins the page with a token. A store that gives a token twice, or none although there is
// more, would leave files out or never come to an end.
func (l *lister) turn(token string) {
	switch {
	case l.err != nil:
	case token == "":
		l.err = fmt.Errorf("%w: the listing has more pages, but does not say where", errAnswer)
	case l.tokens[token] || len(l.tokens) == mostTurns:
		l.err = fmt.Errorf("%w: the listing does not end: %d pages", errAnswer, len(l.tokens)+1)
	default:
		l.tokens[token] = true
	}
}

// folder adds a folder by its prefix in the store.
func (l *lister) folder(prefix string) {
	l.add(object{name: strings.TrimSuffix(prefix, "/"), dir: true})
}

// add adds an object by its name in the store. Stores mark folders with empty objects, which are
// left out. A name from elsewhere makes the listing fail, since it is not to be trusted.
func (l *lister) add(o object) {
	if l.full() {
		return
	}
	l.count++
	switch rest, below := strings.CutPrefix(o.name, l.prefix); {
	case !below:
		l.err = fmt.Errorf("the listing has %q, which is not below %q", o.name, l.prefix)
		return
	case rest == "" || strings.HasSuffix(rest, "/"):
		return
	case l.seen[rest]:
		return
	case !isName(rest):
		l.left++
		l.first = cmp.Or(l.first, rest)
		return
	case o.size < 0 || o.size > largestObject:
		l.err = fmt.Errorf("the listing says that %q has %d bytes", o.name, o.size)
		return
	default:
		l.seen[rest] = true
	}
	o.name = o.name[len(l.under):]
	l.objects = append(l.objects, o)
}

// result returns what the pages had. If it ended early because of what was left out, files would
// be missing. A folder without objects is missing.
func (l *lister) result(c *client, store string) ([]object, error) {
	if l.err == nil && l.count >= l.most && len(l.objects) < l.most {
		return nil, fmt.Errorf("%w: more than %d names, most of which no file can have",
			source.ErrTooMany, len(l.objects))
	}
	if l.left > 0 && l.err == nil {
		c.logger.Warn(fmt.Sprintf("%s: %d names of %q are left out, since no file can have "+
			"them, such as %q",
			store, l.left, l.prefix, l.first[:min(len(l.first), 100)]))
	}
	if l.count == 0 && l.err == nil {
		return nil, fmt.Errorf("%w: there are no objects below %q: check the folder's name",
			source.ErrMissing, l.prefix)
	}
	return l.objects, l.err
}

// readPage reads the body of a page, and closes it. A page that was cut short is asked for again.
func readPage(r *http.Response) ([]byte, error) {
	defer r.Body.Close()
	page, err := io.ReadAll(io.LimitReader(r.Body, mostListing+1))
	switch {
	case err != nil:
		return nil, &delay{err: clean(err)}
	case len(page) > mostListing:
		return nil, fmt.Errorf("a page of the listing has more than %d bytes", mostListing)
	}
	return page, nil
}

// isName reports whether a name in a listing may be the name of a file. Others are left out.
func isName(name string) bool {
	return name != "." && name != ".." && len(name) <= 255 && utf8.ValidString(name) &&
		path.Base(name) == name && !strings.ContainsFunc(name, unicode.IsControl) &&
		!strings.Contains(name, `\`)
}

// escaped writes a name with slashes as the path of a URL.
func escaped(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// rangeOf is the value of the header Range.
func rangeOf(off, n int64) string { return fmt.Sprintf("bytes=%d-%d", off, off+n-1) }

// unpinned turns an error about an object into one about what has no version, such as a bucket.
func unpinned(err error) error {
	var s *errStatus
	if errors.Is(err, source.ErrChanged) && errors.As(err, &s) {
		return s
	}
	return err
}
