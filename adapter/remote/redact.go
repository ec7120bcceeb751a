package remote

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// secrets are the credentials that are in use. No text may have one of them.
var secrets struct {
	sync.RWMutex
	forms []string
}

// keepSecret removes a credential from all errors from now on, whatever form it is in. Short ones
// are left alone: they would remove ordinary words.
func keepSecret(secret string) {
	if len(secret) < 6 {
		return
	}
	secrets.Lock()
	defer secrets.Unlock()
	forms := []string{secret, url.QueryEscape(secret), url.PathEscape(secret),
		base64.StdEncoding.EncodeToString([]byte(secret))}
	for _, form := range forms {
		if !slices.Contains(secrets.forms, form) {
			secrets.forms = append(secrets.forms, form)
		}
	}
}

const removed = "[removed]"

// fields are those of queries, forms and headers that have secrets.
const fields = `x-(?:amz|goog|ms)-[a-z-]+|sig|signature|[a-z_-]*token|awsaccesskeyid|googleaccessid|` +
	`[a-z_-]*passw(?:or)?d|[a-z_-]*secret[a-z_-]*|accountkey|sharedaccesssignature|policy|key-pair-id`

// pattern finds secrets in a text, and says what takes their place.
type pattern struct {
	find *regexp.Regexp
	put  string
}

var patterns = sync.OnceValue(func() (list []pattern) {
	for _, p := range [][2]string{
		// An address: the user's name, the query and the fragment.
		{`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"'<>]*@`, "$1"},
		{`([A-Za-z][A-Za-z0-9+.-]*://[^\s?#"'<>]*)[?#][^\s"'<>]*`, "$1"},
		// A query by itself, and one of its fields.
		{`\?[A-Za-z0-9_.~%+-]+=[^\s"'<>]*`, ""},
		{`(?i)\b(` + fields + `)=[^\s&"'<>,;]+`, "$1=" + removed},
		// JSON, and headers.
		{`(?i)(["'](?:` + fields + `)["']\s*:\s*["'])[^"']*`, "$1" + removed},
		{`(?i)\b((?:x-[a-z-]*(?:token|signature|credential|key)|authorization|(?:set-)?cookie):\s*)\S.*`,
			"$1" + removed},
		{`\b((?i:bearer|basic|sharedkey(?:lite)?|digest|negotiate))\s+` +
			`[a-z._~+/=:-]*[A-Z0-9][A-Za-z0-9._~+/=:-]{5,}`, "$1 " + removed},
		{`(?i)\baws4-hmac-sha256\b[^"'<>]*`, removed},
		// Tokens by their form: of the Hub, of Google, of AWS, and signed JSON.
		{`\b(?:hf|api_org)_[A-Za-z0-9]{16,}`, removed},
		{`\bya29\.[A-Za-z0-9._-]+`, removed},
		{`\b(?:AKIA|ASIA)[A-Z0-9]{12,}`, removed},
		{`\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+`, removed},
	} {
		list = append(list, pattern{regexp.MustCompile(p[0]), p[1]})
	}
	return list
})

// scrub removes secrets from a text.
func scrub(text string) string {
	secrets.RLock()
	for _, s := range secrets.forms {
		text = strings.ReplaceAll(text, s, removed)
	}
	secrets.RUnlock()
	for _, p := range patterns() {
		text = p.find.ReplaceAllString(text, p.put)
	}
	return text
}

// Shown is the name of a source for messages. It has no user name, password or query, which the
// name should not have had in the first place.
func Shown(name string) string {
	scheme, rest, _ := strings.Cut(name, "://")
	host, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(host, ':')
	_, err := strconv.ParseUint(host[at+1:], 10, 16)
	if at >= 0 && err != nil && !strings.HasSuffix(host, "]") && !strings.Contains(host, "@") {
		return scheme + "://" + removed // a password with a slash, rather than a port
	}
	return oneLine(scrub(name))
}

// redactURL is an address without its user and query, which may be credentials.
func redactURL(u *url.URL) string {
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return scrub(bare.String())
}

// clean returns an error without secrets: no user, query or token is in its text, nor in that of an
// error that [errors.As] finds in it. It still is what it was for [errors.Is] and [errors.As].
func clean(err error) error {
	if err == nil {
		return nil
	}
	if u, ok := err.(*url.Error); ok {
		return &url.Error{Op: u.Op, URL: scrub(u.URL), Err: clean(u.Err)}
	}
	text := scrub(err.Error())
	var u *url.Error
	if text == err.Error() && !errors.As(err, &u) {
		return err
	}
	return &cleaned{text, err}
}

// cleaned is an error whose text had a secret. It has no Unwrap, so that the text does not come
// back.
type cleaned struct {
	text string
	err  error
}

func (c *cleaned) Error() string        { return c.text }
func (c *cleaned) GoString() string     { return c.text }
func (c *cleaned) Is(target error) bool { return errors.Is(c.err, target) }

// As finds the errors inside that have no secret.
func (c *cleaned) As(target any) bool {
	if !errors.As(c.err, target) {
		return false
	}
	switch t := target.(type) {
	case **url.Error:
		*t = clean(*t).(*url.Error)
	case *net.Error:
		*t = clean(*t).(net.Error)
	case **delay:
		*t = &delay{clean((*t).err), (*t).after, (*t).busy}
	}
	return true
}

// Timeout and Temporary make it a [net.Error], as many errors inside are.
func (c *cleaned) Timeout() bool {
	var n net.Error
	return errors.As(c.err, &n) && n.Timeout()
}

func (c *cleaned) Temporary() bool { return c.Timeout() }

const (
	mostBody    = 64 << 10 // that is read of a failed answer
	mostExcerpt = 300      // bytes of it in a message
)

// excerpt reads and closes the body of a failed answer. It returns what the store says in it, on
// one line, without secrets and without characters that change a terminal.
func excerpt(a *http.Response) string {
	defer a.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(a.Body, mostBody)) // as much as there is
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	text := strings.TrimSpace(string(body))
	switch {
	case kind == "text/html", strings.HasPrefix(strings.ToLower(text), "<!doctype"),
		strings.HasPrefix(strings.ToLower(text), "<html"):
		return "" // it is for a browser, and says the status again
	case strings.HasPrefix(strings.TrimPrefix(text, "\ufeff"), "<"):
		text = excerptXML(text)
	case strings.HasPrefix(text, "{"):
		text = excerptJSON(text)
	}
	return oneLine(scrub(text))
}

// excerptXML reads the error of S3, Google and Azure. The rest of it may have the signed text.
func excerptXML(text string) string {
	var e struct{ Code, Message string }
	if xml.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &e) != nil {
		return ""
	}
	line, _, _ := strings.Cut(e.Message, "\n")
	return strings.TrimPrefix(e.Code+": "+line, ": ")
}

// excerptJSON reads the error of the Hub, of Google, and of token services.
func excerptJSON(text string) string {
	var e map[string]any
	if json.Unmarshal([]byte(text), &e) != nil {
		return ""
	}
	if inner, ok := e["error"].(map[string]any); ok {
		e = inner
	}
	for _, key := range []string{"error_description", "message", "Message", "error"} {
		if s, ok := e[key].(string); ok {
			return s
		}
	}
	return ""
}

// oneLine returns the beginning of a text on one line, without control characters.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > mostExcerpt {
		text = strings.ToValidUTF8(text[:mostExcerpt], "") + " …"
	}
	return text
}
