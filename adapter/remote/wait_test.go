package remote

import (
	"net/http"
	"testing"
)

// A store cannot ask for more than can be waited for, nor for a negative time.
func TestWaitsAreBounded(t *testing.T) {
	for _, text := range []string{"9223372036", "9223372037", "9999999999999999",
		"9223372036854775807", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		if got := retryAfter(http.Header{"Retry-After": {text}}); got <= 0 || got > mostWait {
			t.Errorf("Retry-After %s: %v", text, got)
		}
	}
	h := &hub{}
	h.quiet(retryAfter(http.Header{"Retry-After": {"9999999999"}}))
	if got := h.busy(); got <= 0 || got > mostQuiet {
		t.Errorf("no request is sent for %v", got)
	}
}
