package remote

import (
	"context"
	"errors"
	"io"
	"net/url"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

func TestWhatIsAskedForAgain(t *testing.T) {
	times := timesOf(Options{})
	for _, c := range []struct {
		name  string
		err   error
		got   int64
		tries int // requests until the read fails; 0: it never does
	}{
		{"a stalled request", errStalled, 0, 6},
		{"a stalled request with a few bytes", errStalled, progress - 1, 6},
		{"a cut connection with progress", io.ErrUnexpectedEOF, progress, 0},
		{"a wrong answer", errAnswer, 0, 6},
		{"a delay", &delay{err: &errStatus{code: 500}}, 0, 6},
		{"a busy store", &delay{err: &errStatus{code: 503}, busy: true}, 0, 6},
		{"a final status", &errStatus{code: 401}, 0, 1},
		{"a redirect that is refused", errRedirect, 0, 1},
		{"another version", source.ErrChanged, 0, 2},
		{"a slow request", errSlow, 0, 0},
	} {
		var r retry
		n := 0
		var err error
		for ; n < 100 && err == nil; n++ {
			_, err = r.next(c.err, c.got, times, 6)
		}
		switch {
		case c.tries == 0 && err != nil, c.tries > 0 && n != c.tries:
			t.Errorf("%s: after %d requests: %v", c.name, n, err)
		case err != nil && !errors.Is(err, c.err):
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	times := timesOf(Options{})
	var r retry
	for i := range 40 {
		wait, err := r.next(io.ErrUnexpectedEOF, 0, times, 100)
		least := min(times.pause<<min(i, 10), times.longest) / 2
		if err != nil || wait < least || wait > 3*least {
			t.Errorf("pause %d is %v, error %v", i, wait, err)
		}
	}
}

func TestAWishForAPauseIsHonoured(t *testing.T) {
	times := timesOf(Options{})
	for _, c := range []struct{ wish, want time.Duration }{
		{7 * time.Second, 7 * time.Second}, {time.Hour, 30 * time.Second},
	} {
		var r retry
		wait, err := r.next(&delay{err: &errStatus{code: 500}, after: c.wish}, 0, times, 6)
		if wait != c.want || err != nil {
			t.Errorf("wish %v: %v, %v", c.wish, wait, err)
		}
	}
}

func TestErrorsOfRequestsAreFitForMessages(t *testing.T) {
	ended, end := context.WithCancelCause(context.Background())
	end(errStalled)
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{ended, &url.Error{Op: "Get", URL: "https://x/?secret", Err: context.Canceled}, errStalled.Error()},
		{context.Background(), &url.Error{Op: "Get", URL: "https://x/?secret", Err: io.EOF}, "EOF"},
		{context.Background(), context.DeadlineExceeded, "context deadline exceeded"},
	} {
		err := plain(c.ctx, c.err)
		if err.Error() != c.want {
			t.Errorf("%v: %v", c.err, err)
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v looks like the end of the reader's context", err)
		}
		noSecrets(t, err)
	}
}

func TestTimesFollowThePatience(t *testing.T) {
	got, second := timesOf(Options{}), time.Second
	if got.patience != 10*second || got.slow != 2*second || got.longest != 30*second {
		t.Errorf("%+v", got)
	}
}
