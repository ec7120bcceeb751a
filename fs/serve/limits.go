package serve

import (
	"net/http"
	"time"
)

// Limits of one connection. A request is small, so it need not take long.
const (
	requestTime = 10 * time.Second // for the header of a request, and for its body
	idleTime    = time.Minute      // between two requests
	maxHeader   = 16 << 10
)

// Server returns a server of a handler whose slow clients are bounded.
//
// It has no ReadTimeout, because that would also end the context of a long answer. Its WriteTimeout
// is extended by the answers while their client takes them.
func (h *Handler) Server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: requestTime, IdleTimeout: idleTime,
		WriteTimeout: h.stall, MaxHeaderBytes: maxHeader,
	}
}
