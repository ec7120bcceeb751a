package remote

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// mostPinned is how many files are asked for at once.
const mostPinned = 64

// Why a file of a web server cannot be read.
var (
	errNoRanges = errors.New("the server sends whole files only (it answers 200 to a request for " +
		"a range)")
	errNoVersion = errors.New("the server gives neither a strong ETag nor Last-Modified, so a " +
		"change while it is read would not be noticed: download the file, or use another server")
)

const unseenSecond = "its server tells versions apart by size and time only: reads do not notice " +
	"a change in the same second that keeps the size; use a server that sends strong ETags"

// naming is why files are asked for, and how the server answers for those that it does not have.
type naming struct {
	listed    bool // the page of their folder has them
	forbidden bool // what is missing is forbidden (403), as in buckets that may not be listed
	page      bool // what is missing is a page for people (200)
}

// Answers for a file that is not there.
var (
	errAbsent = errors.New("the server does not have it, although the page of the folder lists it")
	errPage   = errors.New("the server sends a page (text/html) instead of the file")
)

// missing reports whether an answer means that there is no such file. A server that has another
// answer for names that nobody has given makes a mistake, or has the file.
func (n naming) missing(err error) bool {
	switch {
	case errors.Is(err, errAbsent):
		return !n.listed
	case errors.Is(err, errPage):
		return n.page && !n.listed
	case hasStatus(err, http.StatusForbidden):
		return n.forbidden && !n.listed
	}
	return false
}

// pinAll asks for the first byte of each file. The answers give its size and version, and show that
// the server has ranges. Files that are missing are left out.
func (h *https) pinAll(ctx context.Context, list []entry, n naming) ([]object, error) {
	pinned, errs := make([]*object, len(list)), make([]error, len(list))
	var all errgroup.Group
	all.SetLimit(mostPinned)
	for i, e := range list {
		if e.dir {
			pinned[i] = &object{name: e.name, dir: true}
			continue
		}
		all.Go(func() (err error) {
			pinned[i], errs[i], err = h.pin(ctx, e.name, n)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, h.explain(err)
	}
	var objects []object
	for _, o := range pinned {
		if o != nil {
			objects = append(objects, *o)
		}
	}
	if !slices.ContainsFunc(objects, func(o object) bool { return o.refused == nil }) {
		if why := cmp.Or(errs...); why != nil {
			return nil, h.explain(why)
		}
	}
	return objects, nil
}

// pin asks for the first byte of a file. The object is nil if the file is missing, and why tells
// how the server says so. An answer that would make a file look missing, unreadable or empty is
// asked for again: one server of many may give it by mistake.
func (h *https) pin(ctx context.Context, name string, n naming) (o *object, why, err error) {
	empty := 0
	err = insist(ctx, mostDoubts, n.doubts, func() (err error) {
		switch o, err = h.pinOnce(ctx, name); {
		case err != nil || o.dir:
		case o.refused != nil:
			return doubt{o.refused}
		case o.size == 0:
			if empty++; empty == 1 {
				return doubt{errAnswer}
			}
		}
		return err
	})
	forbidden := hasStatus(err, http.StatusForbidden)
	switch {
	case err == nil, errors.As(err, new(doubt)): // the object says it
		return o, nil, nil
	case !forbidden && !errors.Is(err, errAbsent) && !errors.Is(err, errPage):
		return nil, nil, err
	case !n.missing(err) && (n.listed && forbidden || isModelFile(name)):
		return &object{name: name, refused: h.explain(err)}, err, nil
	case forbidden:
		why = err
	}
	return nil, why, nil
}

// isModelFile reports whether a name may be that of a file that loaders read. Others are documents,
// or links of a page that lead elsewhere.
func isModelFile(name string) bool {
	ends := []string{".json", ".safetensors", ".model", ".txt", ".jinja", ".py"}
	return slices.Contains(ends, path.Ext(name)) && !strings.HasPrefix(name, "LICENSE")
}

// doubt is a reason not to read a file that may be a mistake of the server.
type doubt struct{ error }

// isDoubtful reports whether an answer may be a mistake of the server.
func isDoubtful(err error) bool {
	return errors.As(err, new(doubt)) || hasStatus(err, http.StatusForbidden)
}

// doubts reports whether an answer may be a mistake of the server, given why it was asked.
func (n naming) doubts(err error) bool {
	return isDoubtful(err) || (errors.Is(err, errAbsent) || errors.Is(err, errPage)) && !n.missing(err)
}

// absence asks for a file that nobody has, to learn how the server answers for what is missing.
func (h *https) absence(ctx context.Context) (n naming, err error) {
	_, err = h.pinOnceUntil(ctx, "dequantfs-"+rand.Text()+".json")
	switch {
	case errors.Is(err, errAbsent):
		return n, nil
	case errors.Is(err, errPage):
		return naming{page: true}, nil
	case hasStatus(err, http.StatusForbidden):
		return naming{forbidden: true}, nil
	case err == nil:
		err = errEveryName
	}
	return n, h.explain(err)
}

var errEveryName = errors.New("the server has no page that lists the folder, and sends something " +
	"for every name, so its files are not known: turn the listing of folders on")

// pinOnceUntil asks until the answer is that of most servers for a file that is missing.
func (h *https) pinOnceUntil(ctx context.Context, name string) (o *object, err error) {
	err = insist(ctx, mostDoubts, naming{}.doubts, func() error {
		if o, err = h.pinOnce(ctx, name); err == nil {
			return doubt{errEveryName}
		}
		return err
	})
	if errors.As(err, new(doubt)) {
		err = nil
	}
	return o, err
}

func (h *https) pinOnce(ctx context.Context, name string) (o *object, err error) {
	err = persist(ctx, func() error {
		a, err := h.ask(ctx, h.at(name), http.Header{"Range": {rangeOf(0, 1)}})
		if err != nil {
			return err
		}
		defer a.Body.Close()
		switch c := a.StatusCode; {
		case c == http.StatusNotFound, c == http.StatusGone:
			return errAbsent
		case c == http.StatusOK && isPage(a, name):
			return errPage
		case c == http.StatusOK, c == http.StatusPartialContent,
			c == http.StatusRequestedRangeNotSatisfiable:
			_, _ = io.CopyN(io.Discard, a.Body, 2) // so that the connection can be used again
			o = pinned(a, name)
			return nil
		}
		return statusError(a)
	})
	return o, err
}

// isPage reports whether an answer is a page for people instead of the file.
func isPage(a *http.Response, name string) bool {
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	end := strings.ToLower(path.Ext(name))
	return kind == "text/html" && end != ".html" && end != ".htm"
}

// pinned reads the version of a file from an answer with its first byte.
func pinned(a *http.Response, name string) *object {
	o := &object{name: name, dir: strings.HasSuffix(a.Request.URL.Path, "/")}
	if o.dir {
		return o
	}
	if o.size, o.refused = sizeOf(a); o.refused != nil {
		return o
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		o.refused = fmt.Errorf("the server compresses it (Content-Encoding %q), so its ranges are "+
			"not those of the file: turn that off for this folder", e)
	}
	modified, err := http.ParseTime(a.Header.Get("Last-Modified"))
	if err == nil {
		o.modified = modified
	}
	switch etag := a.Header.Get("ETag"); {
	case isStrong(etag):
		o.etag, o.version = etag, etag
	case err == nil:
		o.weak, o.unseen = weakVersion(a.Header), unseenSecond
	case o.refused == nil:
		o.refused = errNoVersion
	}
	return o
}

// sizeOf reads the size of a file from an answer with its first byte.
func sizeOf(a *http.Response) (int64, error) {
	text := a.Header.Get("Content-Range")
	switch a.StatusCode {
	case http.StatusOK:
		if a.ContentLength == 0 || a.ContentLength == 1 {
			return a.ContentLength, nil
		}
		return 0, errNoRanges
	case http.StatusRequestedRangeNotSatisfiable:
		if text == "bytes */0" {
			return 0, nil
		}
		return 0, fmt.Errorf("%w: status 416, Content-Range %q", errAnswer, text)
	}
	begin, last, size, err := contentRange(text)
	if err == nil && (begin != 0 || last != 0 || size < 1 || size > largestObject) {
		err = fmt.Errorf("%w: Content-Range %q for the first byte", errAnswer, text)
	}
	return size, err
}

// isStrong reports whether an ETag promises that the bytes are the same.
func isStrong(etag string) bool {
	return len(etag) >= 2 && etag[0] == '"' && strings.IndexByte(etag[1:], '"') == len(etag)-2
}

// weakVersion is the time of the last change, and the ETag if there is one. Some servers make a
// weak ETag strong after a while.
func weakVersion(h http.Header) string {
	return h.Get("Last-Modified") + "\n" + strings.TrimPrefix(h.Get("ETag"), "W/")
}

// condition makes a request fail for another version.
func (o *object) condition(h http.Header) {
	if o.etag != "" {
		h.Set("If-Match", o.etag)
		return
	}
	modified, _, _ := strings.Cut(o.weak, "\n")
	h.Set("If-Unmodified-Since", modified)
}

// compareWeak compares an answer with the version of an object that has no strong ETag.
func (o *object) compareWeak(h http.Header) error {
	if now := weakVersion(h); o.etag == "" && now != o.weak {
		return fmt.Errorf("%w: its time and ETag are %q, and were %q", source.ErrChanged, now,
			o.weak)
	}
	return nil
}
