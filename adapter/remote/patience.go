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

// patientBody is the body of an answer. A read that brings no byte for too long fails. The fetcher
// has less patience; this is for all other answers.
type patientBody struct {
	io.ReadCloser
	patience time.Duration
	timer    *time.Timer
	ctx      context.Context
	end      context.CancelCauseFunc
}

// patiently returns the body with a limit to the time without a byte. end ends the request.
func patiently(ctx context.Context, body io.ReadCloser, patience time.Duration,
	end context.CancelCauseFunc) io.ReadCloser {
	timer := time.AfterFunc(patience, func() { end(errIdle) })
	timer.Stop() // until the first read
	return &patientBody{body, patience, timer, ctx, end}
}

// Read reads some bytes.
func (b *patientBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.patience)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
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
