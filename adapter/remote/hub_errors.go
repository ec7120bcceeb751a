package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// said is an error of a kind with its own text.
type said struct {
	kind error
	text string
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.kind }

// refusal is an answer of the Hub that is not what was asked for.
type refusal struct {
	status  int
	code    string // X-Error-Code
	message string // X-Error-Message, on one line
}

// errRevision is the refusal of a revision.
var errRevision = errors.New("no such revision")

// What the Hub says in X-Error-Message.
const (
	badToken = "Invalid credentials in Authorization header"
	disabled = "Access to this resource is disabled."
)

// answered is an error about an answer with a status, which tells that asking again is of no use.
type answered struct {
	error
	status *errStatus
}

func (a *answered) Unwrap() []error { return []error{a.error, a.status} }

// refused returns the error for an answer of the Hub. It closes the body.
func (h *hub) refused(r *http.Response, t token) error {
	_ = r.Body.Close()
	message := oneLine(scrub(r.Header.Get("X-Error-Message")))
	a := refusal{r.StatusCode, r.Header.Get("X-Error-Code"), message}
	status := &errStatus{a.status, a.message}
	for _, rule := range refusals {
		if rule.is(a) {
			return &answered{rule.err(h, a, t), status}
		}
	}
	wait := hubWait(r.Header)
	switch {
	case a.status == http.StatusTooManyRequests:
		h.quiet(wait)
		return &delay{h.limited(wait, t), wait, true}
	case a.status == http.StatusServiceUnavailable:
		return &delay{fmt.Errorf("%s: %w", h.endpoint, status), wait, true}
	case a.status == http.StatusRequestTimeout || a.status >= 500:
		return &delay{fmt.Errorf("%s: %w", h.endpoint, status), wait, false}
	}
	return fmt.Errorf("%s: %w", h.repository(), status)
}

// refusals are the answers that have a way out, by the headers that huggingface_hub reads.
var refusals = []struct {
	is  func(a refusal) bool
	err func(h *hub, a refusal, t token) error
}{
	{func(a refusal) bool { return a.code == "RevisionNotFound" }, (*hub).noRevision},
	{func(a refusal) bool { return a.code == "EntryNotFound" || a.status == 416 }, (*hub).noEntry},
	{func(a refusal) bool { return a.code == "GatedRepo" }, (*hub).gated},
	{func(a refusal) bool { return a.message == disabled }, (*hub).disabled},
	{func(a refusal) bool {
		return a.status == 401 && strings.HasPrefix(a.message, badToken)
	}, (*hub).wrongToken},
	{func(a refusal) bool {
		return a.code == "RepoNotFound" || a.status == 401 || a.status == 404 && a.code == ""
	}, (*hub).noRepository},
	{func(a refusal) bool { return a.status == 403 }, (*hub).forbidden},
}

func (h *hub) noRevision(refusal, token) error {
	return fmt.Errorf("%s: %w", h.repository(), errRevision)
}

// noEntry is about a file of the pinned commit, which was listed.
func (h *hub) noEntry(refusal, token) error {
	return fmt.Errorf("%w: the Hub does not have the file any more", source.ErrChanged)
}

func (h *hub) gated(_ refusal, t token) error {
	way := `then run "hf auth login" or set HF_TOKEN`
	if t.text != "" {
		way = "with the account of the token in " + t.from
	}
	return sayAccess("%s is gated: accept its conditions at %s, %s", h.repository(), h.page(), way)
}

func (h *hub) disabled(refusal, token) error {
	return sayAccess("%s is disabled by the Hub: see %s", h.repository(), h.page())
}

func (h *hub) wrongToken(_ refusal, t token) error {
	if t.text == "" {
		return h.noRepository(refusal{}, t)
	}
	way := `run "hf auth login" again`
	if !strings.ContainsAny(t.from, `/\`) {
		way = "set another one, or unset it"
	}
	return sayAccess("%s refuses the token in %s, which is wrong or has expired: %s", h.endpoint,
		t.from, way)
}

// noRepository is about a repository that is missing or private. The Hub does not tell which.
func (h *hub) noRepository(_ refusal, t token) error {
	way := `check the name, or if it is private, run "hf auth login" or set HF_TOKEN`
	if t.text != "" {
		way = fmt.Sprintf("check the name, or use a token that may read it (this one is in %s)",
			t.from)
	}
	return &said{source.ErrMissing, fmt.Sprintf("%s has no model %s, or it is private: %s",
		h.endpoint, h.at.id, way)}
}

// forbidden is about a 403. One without a reason is not of the Hub, but of a proxy or a guard in
// between, and may pass.
func (h *hub) forbidden(a refusal, t token) error {
	if a.code == "" && a.message == "" {
		return &delay{err: fmt.Errorf("%s: %w", h.endpoint, &errStatus{code: a.status})}
	}
	text := fmt.Sprintf("%s forbids reading %s", h.endpoint, h.repository())
	if a.message != "" {
		text += " (" + a.message + ")"
	}
	if t.text == "" {
		return sayAccess(`%s: run "hf auth login" or set HF_TOKEN`, text)
	}
	return sayAccess("%s: use a token that may read it (this one is in %s)", text, t.from)
}

// errAccess says that the source may not be read with the credentials at hand.
var errAccess = errors.New("no access")

func sayAccess(format string, args ...any) error {
	return &said{errAccess, fmt.Sprintf(format, args...)}
}

// limited is about too many requests.
func (h *hub) limited(wait time.Duration, t token) error {
	text := h.endpoint + " limits the rate of requests: try again"
	if wait > 0 {
		text += fmt.Sprintf(" in %d s", int(wait.Seconds()+0.999))
	} else {
		text += " in some minutes"
	}
	if t.text == "" {
		text += `, or run "hf auth login" for a higher limit`
	}
	return errors.New(text)
}

// unreachable is about an endpoint that does not answer. One way out is enough: that of the Hub, or
// a better one that is known.
func (h *hub) unreachable(err error) error {
	var (
		u *url.Error
		w wayOut
	)
	if errors.As(err, &u) {
		err = u.Err
	}
	fix := "check the network, or set HTTPS_PROXY, or HF_ENDPOINT to a mirror"
	if h.endpoint != hubEndpoint {
		fix = "correct HF_ENDPOINT, or unset it"
	}
	fix += ", or set HF_HUB_OFFLINE=1 to read what is downloaded"
	switch {
	case errors.As(err, &w) && w.absent:
		err = wayOut{w.what, fix, false, w.err}
	case !errors.As(err, &w):
		err = fmt.Errorf("%w: %s", err, fix)
	}
	return &delay{err: fmt.Errorf("cannot reach %s: %w", h.endpoint, err)}
}

var rateLimit = regexp.MustCompile(`(?:;\s*r\s*=\s*(\d+))?\s*;\s*t\s*=\s*(\d{1,6})`)

// hubWait reads how long the Hub wants to be left alone: from Retry-After, or from RateLimit, which
// looks like "api";r=0;t=55. The Hub sends RateLimit always. It counts if nothing remains.
func hubWait(h http.Header) time.Duration {
	if wait := retryAfter(h); wait > 0 {
		return wait
	}
	m := rateLimit.FindStringSubmatch(h.Get("RateLimit"))
	if m == nil || strings.Trim(m[1], "0") != "" {
		return 0
	}
	s, _ := strconv.Atoi(m[2]) // six digits
	return time.Duration(s) * time.Second
}
