package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// errIdle ends an answer whose server has stopped sending. It counts as a timeout.
var errIdle = fmt.Errorf("the server stopped sending: %w", os.ErrDeadlineExceeded)

// patientBody is the body of an answer. It fails if too few bytes come for too long. The time between
// reads does not count. The fetcher has less patience; this is for all other answers.
type patientBody struct {
	io.ReadCloser
	patience time.Duration
	left     time.Duration // for the next bytes
	got      int64         // since left was the patience
	timer    *time.Timer
	ctx      context.Context
	end      context.CancelCauseFunc
}

// patiently returns the body with a limit to the time without a byte. end ends the request.
func patiently(ctx context.Context, body io.ReadCloser, patience time.Duration,
	end context.CancelCauseFunc) io.ReadCloser {
	timer := time.AfterFunc(patience, func() { end(errIdle) })
	timer.Stop() // until the first read
	return &patientBody{ReadCloser: body, patience: patience, left: patience, timer: timer,
		ctx: ctx, end: end}
}

// Read reads some bytes.
func (b *patientBody) Read(p []byte) (int, error) {
	begin := time.Now()
	b.timer.Reset(max(b.left, 1))
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.left -= time.Since(begin)
	if b.got += int64(n); b.got >= progress {
		b.got, b.left = 0, b.patience
	}
	if err != nil && errors.Is(context.Cause(b.ctx), errIdle) {
		err = errIdle
	}
	return n, err
}

// Close ends the request.
func (b *patientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}
