package remote

import (
	"cmp"
	"io"
	"net/http"
	"strings"
	"time"
)

// client sends requests. It never follows a redirect by itself: the backend decides.
type client struct {
	http      *http.Client
	transport *http.Transport // that the client made
}

// Bounds of a client.
const (
	mostConnections = 256
	headerPatience  = 30 * time.Second
)

func newClient(o Options) *client {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		MaxConnsPerHost:       mostConnections,
		MaxIdleConns:          mostConnections,
		MaxIdleConnsPerHost:   mostConnections,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
		ForceAttemptHTTP2:     false,
		ResponseHeaderTimeout: headerPatience,
	}
	c := &client{transport: t, http: &http.Client{
		Transport: cmp.Or[http.RoundTripper](o.Transport, t),
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
	return c
}

// do sends a request.
func (c *client) do(r *http.Request) (*http.Response, error) {
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "dequantfs")
	return c.http.Do(r)
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// excerpt reads and closes the body of a failed answer, and returns its beginning on one line.
func excerpt(r *http.Response) string {
	defer r.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "")), " ")
	return line[:min(len(line), 300)]
}
