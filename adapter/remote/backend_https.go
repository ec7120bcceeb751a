package remote

import (
	"context"
	"errors"
	"net/http"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// https is a folder of a web server.
type https struct {
	base   string
	client *client
}

func openHTTPS(_ context.Context, a address, c *client) (backend, error) {
	return &https{a.scheme + "://" + a.rest, c}, nil
}

func (h *https) name() string              { return h.base }
func (h *https) public() bool              { return true }
func (h *https) download() source.Download { return source.Download{} }

func (h *https) list(context.Context, string, int) ([]object, error) {
	return nil, errors.ErrUnsupported
}

func (h *https) get(context.Context, *object, int64, int64) (*http.Response, error) {
	return nil, errors.ErrUnsupported
}
