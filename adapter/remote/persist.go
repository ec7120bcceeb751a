package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// How often a question about objects is asked, and the pauses in between.
const (
	mostAsked  = 5
	mostDoubts = 3 // for answers that may be a server's last word
	firstPause = 200 * time.Millisecond
	mostPause  = 30 * time.Second
)

// persist asks a question about objects again while that may help. Reading their bytes has its own
// rules, since many readers share a store.
func persist(ctx context.Context, ask func() error) error {
	return insist(ctx, mostAsked, isPassing, ask)
}

// insist asks a question up to so many times, while its error may pass.
func insist(ctx context.Context, times int, passes func(error) bool, ask func() error) error {
	for pause, asked := firstPause, 1; ; pause, asked = 2*pause, asked+1 {
		err := ask()
		if err == nil || asked == times || !passes(err) {
			return err
		}
		wait := pause/2 + rand.N(pause)
		var d *delay
		if errors.As(err, &d) {
			wait = min(max(wait, d.after), mostPause)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// isPassing reports whether the same request may succeed later.
func isPassing(err error) bool {
	var (
		d         *delay
		transport *url.Error
		name      *net.DNSError
		cert      *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &d):
		return !hasStatus(err, http.StatusForbidden)
	case errors.As(err, &cert), errors.As(err, new(tls.RecordHeaderError)),
		errors.As(err, &name) && name.IsNotFound, errors.Is(err, errRedirect),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.Canceled):
		return false
	}
	return errors.As(err, &transport)
}
