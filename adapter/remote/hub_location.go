package remote

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// location is where the content of a file is. The endpoint is asked once for the signed address of
// a file, which serves all ranges until it expires.
type location struct {
	mu      sync.Mutex
	signed  *place            // nil if it is not known
	until   time.Time         // when signed is to be renewed
	direct  bool              // the endpoint itself sends the bytes
	asking  *question         // that is under way
	useless time.Time         // when a new address was refused like the one before
	etags   map[string]string // of the content, by origin
}

// question is a request for a signed address, which several readers wait for.
type question struct {
	done   chan struct{} // closed when it is answered
	left   bool          // the reader who asked has gone, so others ask again
	err    error
	signed *place // nil: the endpoint itself sends the bytes
}

// known returns the signed address if it is still good, or whether none is needed.
func (l *location) known(now time.Time) (signed *place, direct bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signed != nil && now.Before(l.until) {
		return l.signed, false
	}
	return nil, l.direct
}

// ask returns the question that is under way. If there is none, the caller asks a new one.
func (l *location) ask() (q *question, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking != nil {
		return l.asking, false
	}
	l.asking = &question{done: make(chan struct{})}
	return l.asking, true
}

// answer ends a question.
func (l *location) answer(q *question, f found, err error) {
	l.keep(f, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	q.signed, q.err, l.asking = f.signed, err, nil
	close(q.done)
}

// keep keeps an address until it is to be renewed.
func (l *location) keep(f found, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.signed, l.until, l.direct = f.signed, f.until, f.signed == nil
	}
}

// patienceUseless is how long no new address is asked for after one did not help. Not every refusal
// means that an address has expired.
const patienceUseless = 30 * time.Second

// expired drops an address that was refused, unless there is another one already. It reports
// whether another address may help.
func (l *location) expired(signed *place, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.useless.IsZero() && now.Sub(l.useless) < patienceUseless {
		return false
	}
	if l.signed == signed {
		l.signed = nil
	}
	return true
}

// inVain remembers that a new address was refused too.
func (l *location) inVain(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.useless = now
}

// pin compares the ETag of an answer with that of the first answer of the same host. An answer
// without one may be of any version, unless the first had none either.
func (l *location) pin(host, etag string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.etags == nil {
		l.etags = map[string]string{}
	}
	was, known := l.etags[host]
	kind := source.ErrChanged
	switch {
	case !known:
		l.etags[host] = etag
		return nil
	case was == etag:
		return nil
	case was == "" || etag == "":
		kind = errAnswer
	}
	return fmt.Errorf("%w: its ETag is %q, and was %q", kind, oneLine(etag), oneLine(was))
}

// assumedLife is for an address that does not tell when it expires. Those of the Hub live for an
// hour.
const assumedLife = 10 * time.Minute

// renewal returns when an address is to be renewed. Its expiry is compared with the time of the
// server, so the local clock may be wrong.
func renewal(signed *url.URL, server, now time.Time) time.Time {
	life := assumedLife
	if end := expiry(signed.Query()); !end.IsZero() {
		if server.IsZero() {
			server = now
		}
		life = end.Sub(server)
	}
	if life <= 0 { // a clock is wrong
		life = assumedLife
	}
	return now.Add(life - min(life/10, time.Minute))
}

// expiry reads when a signed address expires. It is zero if the address does not tell.
func expiry(q url.Values) (end time.Time) {
	earliest := func(t time.Time, ok bool) {
		if ok && (end.IsZero() || t.Before(end)) {
			end = t
		}
	}
	for _, s := range []string{"X-Amz-", "X-Goog-"} { // Amazon and Google, and what is like them
		begin, err := time.Parse("20060102T150405Z", q.Get(s+"Date"))
		life, ok := seconds(q.Get(s + "Expires"))
		earliest(begin.Add(time.Duration(life)*time.Second), err == nil && ok)
	}
	epoch, ok := seconds(q.Get("Expires")) // CloudFront, and Amazon before
	earliest(time.Unix(epoch, 0), ok)
	epoch, ok = policyEnd(q.Get("Policy")) // CloudFront with a policy of its own
	earliest(time.Unix(epoch, 0), ok)
	azure, err := time.Parse(time.RFC3339, q.Get("se"))
	earliest(azure, err == nil)
	return end
}

// seconds reads a number of seconds.
func seconds(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0 && n < 1<<40
}

// policyEnd reads the end of a policy of CloudFront.
func policyEnd(s string) (int64, bool) {
	s = strings.NewReplacer("-", "+", "_", "=", "~", "/").Replace(s)
	text, err := base64.StdEncoding.DecodeString(s)
	if err != nil || s == "" {
		return 0, false
	}
	var policy struct {
		Statement []struct {
			Condition struct {
				DateLessThan struct {
					Epoch int64 `json:"AWS:EpochTime"`
				}
			}
		}
	}
	if json.Unmarshal(text, &policy) != nil || len(policy.Statement) == 0 {
		return 0, false
	}
	end := policy.Statement[0].Condition.DateLessThan.Epoch
	return end, end > 0 && end < 1<<40
}
