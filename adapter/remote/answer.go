package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// errAnswer is an answer that does not fit its request. Another server of the store may answer
// right, so the request is sent again.
var errAnswer = errors.New("the server's answer does not fit the request")

// answer is the body of an answer that was compared with its request.
type answer struct {
	body io.ReadCloser
	n    int64 // bytes that the body has if the answer is right
	sure bool  // the length was announced, so every byte is in place as it arrives
}

// ask sends one request, and compares the header of the answer.
func ask(r *http.Response, o *object, off, n int64) (*answer, error) {
	if err := compare(r, o, off, n); err != nil {
		r.Body.Close()
		return nil, err
	}
	return &answer{r.Body, n, r.ContentLength == n}, nil
}

// end checks that nothing follows the last byte. Reading on to the end also lets the connection
// be used again.
func (a *answer) end() error {
	var one [1]byte
	switch n, err := io.ReadFull(a.body, one[:]); {
	case n > 0:
		return fmt.Errorf("%w: it is longer than %d bytes", errAnswer, a.n)
	case err != io.EOF:
		return err
	}
	return nil
}

// compare checks that an answer has the bytes [off, off+n) of the pinned version of an object.
func compare(r *http.Response, o *object, off, n int64) error {
	if err := compareVersion(r, o); err != nil {
		return err
	}
	switch r.StatusCode {
	case http.StatusOK:
		return compareWhole(r, o, off, n)
	case http.StatusPartialContent:
		return compareRange(r, o, off, n)
	}
	if err := statusError(r); err != nil {
		return err
	}
	return fmt.Errorf("%w: status %d", errAnswer, r.StatusCode)
}

// compareVersion checks the encoding and the ETag. If the ETag is known, an answer without one may
// be of any version.
func compareVersion(r *http.Response, o *object) error {
	if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusPartialContent {
		return nil
	}
	e, err := single(r.Header, "Content-Encoding")
	if err == nil && e != "" && !strings.EqualFold(e, "identity") || r.Uncompressed {
		return fmt.Errorf("%w: it is compressed (Content-Encoding %q)", errAnswer, e)
	}
	tag, err2 := single(r.Header, "ETag")
	switch {
	case err != nil || err2 != nil:
		return errors.Join(err, err2)
	case o.etag == "" || tag == o.etag:
		return nil
	case tag == "":
		return fmt.Errorf("%w: it has no ETag, and should have %s", errAnswer, o.etag)
	}
	return fmt.Errorf("%w: its ETag is %s, and was %s", source.ErrChanged, tag, o.etag)
}

// compareWhole checks an answer that has no range. It is right only if all bytes were asked for.
func compareWhole(r *http.Response, o *object, off, n int64) error {
	switch {
	case r.ContentLength >= 0 && r.ContentLength != o.size:
		return otherSize(r.ContentLength, o)
	case off != 0 || n != o.size:
		return fmt.Errorf("%w: it has the whole object (status 200) instead of bytes %d-%d",
			errAnswer, off, off+n-1)
	}
	return nil
}

func otherSize(n int64, o *object) error {
	return fmt.Errorf("%w: it has %d bytes, and had %d", source.ErrChanged, n, o.size)
}

func compareRange(r *http.Response, o *object, off, n int64) error {
	text, err := single(r.Header, "Content-Range")
	if err != nil {
		return err
	}
	begin, last, total, err := contentRange(text)
	switch {
	case err != nil:
		return err
	case total != o.size:
		return otherSize(total, o)
	case begin != off || last != off+n-1:
		return fmt.Errorf("%w: bytes %d-%d instead of %d-%d", errAnswer, begin, last, off, off+n-1)
	case r.ContentLength >= 0 && r.ContentLength != n:
		return fmt.Errorf("%w: Content-Length %d instead of %d", errAnswer, r.ContentLength, n)
	}
	return nil
}

// single returns the value of a header that must not be there twice.
func single(h http.Header, key string) (string, error) {
	if v := h.Values(key); len(v) > 1 {
		return "", fmt.Errorf("%w: %d headers %s", errAnswer, len(v), key)
	}
	return h.Get(key), nil
}

// contentRange reads "bytes 0-9/100". A total that is not told, "*", is refused, because the size
// is a part of the version.
func contentRange(s string) (begin, last, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	var numbers [3]int64
	for i, text := range []string{from, to, size} {
		v, err := strconv.ParseUint(text, 10, 63)
		if err != nil || !ok || !ok2 || !ok3 {
			return 0, 0, 0, fmt.Errorf("%w: Content-Range %q", errAnswer, s)
		}
		numbers[i] = int64(v)
	}
	return numbers[0], numbers[1], numbers[2], nil
}
