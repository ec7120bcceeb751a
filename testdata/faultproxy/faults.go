package faultproxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	None Kind = "" // the request is passed on

	// Instead of an answer of the server.
	Throttled   Kind = "429"
	Unavailable Kind = "503"
	SlowDown    Kind = "503 SlowDown" // in the XML of S3
	Forbidden   Kind = "403"
	Expired     Kind = "403 expired" // as S3 says it of a presigned URL
	Hang        Kind = "hang"        // no answer until the client gives up
	Garbage     Kind = "garbage"     // not HTTP
	Closed      Kind = "closed"      // the connection, without an answer

	// In the middle of a body, after the right header.
	Cut       Kind = "cut"       // the connection is reset
	Truncated Kind = "truncated" // the connection is closed
	HangBody  Kind = "hang body" // no further byte until the client gives up

	// Bodies and headers that contradict each other.
	Short      Kind = "short"       // fewer bytes, announced as such, but Content-Range is right
	Long       Kind = "long"        // more bytes than announced
	LongLength Kind = "long length" // more bytes, announced as such, but Content-Range is right
	WrongBegin Kind = "wrong begin" // other bytes; Content-Range says another range than asked for
	WrongTotal Kind = "wrong total" // other bytes; Content-Range says an object of another size
	Whole      Kind = "whole"       // 200 and the whole object, although a range was asked for
	Gzip       Kind = "gzip"        // compressed, although that was not asked for

	// Another object under the same name, of the same size. Its bytes differ in every place.
	Other        Kind = "other object"
	OtherNoETag  Kind = "other object without ETag"
	WithoutETags Kind = "no ETag" // the right object

	Slow Kind = "slow" // the right body, at SlowRate
)

// SlowRate is how many bytes per second an answer of the kind Slow sends.
const SlowRate = 64 << 10

// All has every kind that a client must notice. Of None, WithoutETags and Slow it gets right bytes.
var All = []Kind{Throttled, Unavailable, SlowDown, Forbidden, Expired, Hang, Garbage, Closed, Cut,
	Truncated, HangBody, Short, Long, LongLength, WrongBegin, WrongTotal, Whole, Gzip, Other,
	OtherNoETag}

// Storms has the kinds that come in storms.
var Storms = map[Kind]bool{Throttled: true, Unavailable: true, SlowDown: true}

// fault says how a kind is made. One that cannot be made of an answer leaves the answer as it is.
type fault struct {
	instead func(*exchange)                           // without asking the server
	ask     func(http.Header)                         // changes what is asked
	needs   func(*http.Request, *answer) bool         // whether this answer can have the fault
	change  func(*answer, *rand.Rand)                 // changes header and body
	raw     func(*exchange, net.Conn, *answer, int64) // sends the body, with a place in its middle
}

var faults = map[Kind]fault{
	Throttled:   {instead: status(http.StatusTooManyRequests, "")},
	Unavailable: {instead: status(http.StatusServiceUnavailable, "")},
	SlowDown: {instead: status(http.StatusServiceUnavailable,
		s3Error("SlowDown", "Please reduce your request rate."))},
	Forbidden: {instead: status(http.StatusForbidden, "")},
	Expired: {instead: status(http.StatusForbidden,
		s3Error("AccessDenied", "Request has expired"))},
	Hang:         {instead: func(x *exchange) { x.hang() }},
	Garbage:      {instead: garbage},
	Closed:       {instead: func(x *exchange) { x.hijack().Close() }},
	Cut:          {needs: hasBody, raw: cut},
	Truncated:    {needs: hasBody, raw: sendPart},
	HangBody:     {needs: hasBody, raw: hangBody},
	Short:        {needs: hasBody, change: short},
	Long:         {needs: hasBody, raw: long},
	LongLength:   {needs: hasBody, change: longLength},
	WrongBegin:   {needs: isRange, change: wrongBegin},
	WrongTotal:   {needs: isRange, change: wrongTotal},
	Whole:        {needs: isWhole, ask: func(h http.Header) { h.Del("Range") }},
	Gzip:         {needs: hasBody, change: compress},
	Other:        {needs: isObject, change: other},
	OtherNoETag:  {needs: isObject, change: otherNoETag},
	WithoutETags: {needs: isObject, change: withoutETag},
	Slow:         {needs: hasBody, raw: slow},
}

// s3Error is the body of an error as S3 sends it.
func s3Error(code, message string) string {
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>`+
		"\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

// status answers with an error, and announces when to come again if the plan says so.
func status(code int, body string) func(*exchange) {
	return func(x *exchange) {
		h := x.w.Header()
		if body != "" {
			h.Set("Content-Type", "application/xml")
		}
		if n := x.plan.RetryAfter; n > 0 && code != http.StatusForbidden {
			h.Set("Retry-After", strconv.Itoa(n))
		}
		x.entry.Status = code
		x.w.WriteHeader(code)
		_, _ = io.WriteString(x.w, body)
	}
}

// garbage answers in no protocol that a client knows.
func garbage(x *exchange) {
	c := x.hijack()
	defer c.Close()
	_, _ = io.WriteString(c, "HTTQ/9.9 banana\r\nX: y\r\n\r\nno HTTP")
}

// hasBody tells answers that have something to cut or change. A body of unknown size has not.
func hasBody(r *http.Request, a *answer) bool {
	return r.Method == http.MethodGet && a.status/100 == 2 && a.size > 0
}

// isRange tells answers that have a Content-Range.
func isRange(r *http.Request, a *answer) bool {
	return hasBody(r, a) && a.status == http.StatusPartialContent
}

// isWhole tells whole objects that were not asked for.
func isWhole(r *http.Request, a *answer) bool {
	return hasBody(r, a) && a.status == http.StatusOK && r.Header.Get("Range") != ""
}

// isObject tells objects from listings, which have no ETag.
func isObject(r *http.Request, a *answer) bool {
	return hasBody(r, a) && (isRange(r, a) || a.header.Get("ETag") != "")
}

// sendPart sends the header and the body up to a place in its middle.
func sendPart(x *exchange, c net.Conn, a *answer, middle int64) {
	a.writeHeader(c)
	n, _ := io.CopyN(c, a.body, middle)
	x.entry.Bytes = n
}

// cut resets the connection. What is on its way may be lost with it.
func cut(x *exchange, c net.Conn, a *answer, middle int64) {
	sendPart(x, c, a, middle)
	reset(c)
}

// hangBody keeps the connection open, and sends no more on it.
func hangBody(x *exchange, c net.Conn, a *answer, middle int64) {
	sendPart(x, c, a, middle)
	x.untilGone(c)
}

// long sends bytes that a client which reuses the connection takes for the next answer.
func long(x *exchange, c net.Conn, a *answer, _ int64) {
	sendPart(x, c, a, a.size)
	_, _ = c.Write(make([]byte, 1000))
}

// slow sends the body in small pieces.
func slow(x *exchange, c net.Conn, a *answer, _ int64) {
	a.writeHeader(c)
	const pieces = 50 // in a second
	for x.sleep(time.Second / pieces) {
		n, err := io.CopyN(c, a.body, SlowRate/pieces)
		x.entry.Bytes += n
		if err != nil {
			return
		}
	}
}

// short sends fewer bytes. The header announces so many.
func short(a *answer, rng *rand.Rand) { a.resize(rng.Int64N(a.size)) }

// longLength sends more bytes. The header announces them, but its Content-Range does not.
func longLength(a *answer, _ *rand.Rand) {
	a.body = io.MultiReader(a.body, bytes.NewReader(make([]byte, 1000)))
	a.resize(a.size + 1000)
}

// contentRange changes a number of the header: 0 is the begin, 1 the end, 2 the total.
func (a *answer) contentRange(change func(n *[3]int64)) {
	var n [3]int64
	text := a.header.Get("Content-Range")
	if _, err := fmt.Sscanf(text, "bytes %d-%d/%d", &n[0], &n[1], &n[2]); err != nil {
		panic(fmt.Sprintf("Content-Range %q: %v", text, err))
	}
	change(&n)
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n[0], n[1], n[2]))
}

// wrongBegin answers with another range than was asked for.
func wrongBegin(a *answer, rng *rand.Rand) {
	by := 1 + rng.Int64N(4096)
	a.contentRange(func(n *[3]int64) { n[0], n[1], n[2] = n[0]+by, n[1]+by, max(n[2], n[1]+by+1) })
	a.body = flipped{a.body}
}

// wrongTotal answers with an object of another size.
func wrongTotal(a *answer, rng *rand.Rand) {
	by := 1 + rng.Int64N(4096)
	a.contentRange(func(n *[3]int64) { n[2] += by })
	a.body = flipped{a.body}
}

// compress sends the body in gzip, although Content-Range speaks of the plain bytes.
func compress(a *answer, _ *rand.Rand) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.Copy(z, a.body)
	_ = z.Close()
	a.body = &b
	a.header.Set("Content-Encoding", "gzip")
	a.resize(int64(b.Len()))
}

// identifying are the headers that say which object this is.
var identifying = []string{"X-Goog-Generation", "X-Goog-Metageneration", "X-Goog-Hash",
	"X-Goog-Stored-Content-Length", "X-Amz-Version-Id", "Content-MD5"}

// other has an ETag and a generation that look like the right ones.
func other(a *answer, _ *rand.Rand) {
	before := a.header.Clone()
	otherNoETag(a, nil)
	for _, name := range []string{"ETag", "X-Goog-Generation"} {
		if v := before.Get(name); v != "" {
			a.header.Set(name, strings.Map(next, v))
		}
	}
}

// next keeps the length and the alphabet of an ETag.
func next(r rune) rune {
	if '0' <= r && r <= '8' || 'a' <= r && r <= 'e' {
		return r + 1
	}
	return r
}

// otherNoETag leaves only Last-Modified to tell that this is another object.
func otherNoETag(a *answer, rng *rand.Rand) {
	withoutETag(a, rng)
	a.body = flipped{a.body}
	if at, err := http.ParseTime(a.header.Get("Last-Modified")); err == nil {
		a.header.Set("Last-Modified", at.Add(time.Second).Format(http.TimeFormat))
	}
}

// withoutETag removes whatever else says which object this is, too.
func withoutETag(a *answer, _ *rand.Rand) {
	a.header.Del("ETag")
	for name := range a.header {
		if strings.HasPrefix(name, "X-Amz-Checksum") {
			a.header.Del(name)
		}
	}
	for _, name := range identifying {
		a.header.Del(name)
	}
}

// flipped changes every byte.
type flipped struct{ io.Reader }

func (f flipped) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	for i := range b[:n] {
		b[i] ^= 0x55
	}
	return n, err
}
