package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Why requests and reads end early.
var (
	errClosed   = fmt.Errorf("the source was closed: %w", fs.ErrClosed)
	errStalled  = errors.New("the server sent no bytes for too long")
	errSlow     = errors.New("the server sent bytes much more slowly than usual")
	errUnwanted = errors.New("no reader waits for the bytes any more")
	errSilent   = errors.New("the store sent no bytes to any request for too long")
)

// progress is how many bytes a request must bring within the patience. A request that brought as
// many has also earned its block all tries again. So a server that cuts every connection early is
// of use, and one that sends a byte now and then ends the read.
const progress = 16 << 10

// times are the pauses and limits that follow from the patience.
type times struct {
	patience time.Duration
	slow     time.Duration // age of a request that may be found too slow
	pause    time.Duration // after the first failure; it doubles
	busy     time.Duration // after the first answer that asks for fewer requests; it doubles
	longest  time.Duration // pause, also if the store wants a longer one
	silent   time.Duration // a read fails if the whole store is silent for that long
	stale    time.Duration // age of unread blocks that are not kept for their reader any more
	recent   time.Duration // age of blocks that are being read in small pieces
	tick     time.Duration // between looks at the requests
}

// timesOf derives the times. A server that never sends a byte fails a read after Tries times the
// patience, and short pauses. A store that asks for fewer requests all the time fails it after
// Tries times the longest pause. No read waits longer than silent without a byte from the store.
func timesOf(o Options) times {
	p := cmp.Or(o.Patience, 10*time.Second)
	return times{
		patience: p,
		slow:     p / 5,
		pause:    p / 100,
		busy:     p / 10,
		longest:  3 * p,
		silent:   4 * p * time.Duration(triesOf(o)),
		stale:    3 * p,
		recent:   p / 10,
		tick:     max(p/40, time.Millisecond),
	}
}

func triesOf(o Options) int { return cmp.Or(max(o.Tries, 0), 6) }

// retry is what a block remembers of its failures.
type retry struct {
	tries   int  // failures in a row without progress
	changed bool // another version was seen once, which one more request has to confirm
	slow    bool // a request was too slow from the beginning; the next one has its full patience
}

// next tells how long to wait before bytes are asked for again. An error ends the read.
func (r *retry) next(err error, got int64, t times, tries int) (time.Duration, error) {
	advanced := got >= progress
	if advanced {
		*r = retry{}
	}
	switch {
	case errors.Is(err, source.ErrChanged):
		if r.changed {
			return 0, err
		}
		r.changed = true
		return jitter(t.pause), nil
	case errors.Is(err, errSlow):
		r.slow = !advanced
		return 0, nil
	case final(err):
		return 0, err
	}
	r.tries++
	switch {
	case r.tries >= tries:
		return 0, fmt.Errorf("%d tries in a row failed: %w", r.tries, err)
	case advanced || busy(err) != nil: // an answer that asks for fewer requests makes all wait
		return 0, nil
	}
	wait := jitter(min(t.pause<<min(r.tries-1, 10), t.longest))
	return max(wait, min(wish(err), t.longest)), nil
}

// final reports whether asking again is of no use.
func final(err error) bool {
	var d *delay
	var s *errStatus
	var c *tls.CertificateVerificationError
	return !errors.As(err, &d) &&
		(errors.As(err, &s) || errors.As(err, &c) || errors.Is(err, errRedirect))
}

// busy returns the error's wish for fewer requests, or nil.
func busy(err error) *delay {
	var d *delay
	if errors.As(err, &d) && d.busy {
		return d
	}
	return nil
}

// wish is how long the store wants to be left alone.
func wish(err error) time.Duration {
	var d *delay
	if errors.As(err, &d) {
		return d.after
	}
	return 0
}

// jitter is between half and one and a half of a duration, so that requests that failed at once are
// not sent again at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(max(d, 1))
}

// plain makes the error of a request fit for messages: it never has an address, which may be
// signed, and never looks like the end of the reader's context.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New(err.Error())
	}
	return err
}
