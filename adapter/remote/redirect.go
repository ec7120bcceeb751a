package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// mostRedirects is how many redirects are followed for one request.
const mostRedirects = 5

// errRedirect is a redirect that is not followed. Asking again does not help.
var errRedirect = errors.New("the server redirects to where it must not")

// place is where a redirect leads.
type place struct {
	url     *url.URL
	guarded bool // it must not have a private address, because a public server has named it
}

// request makes a request to a place, without credentials.
func (p *place) request(ctx context.Context, method string) (*http.Request, error) {
	ctx = context.WithValue(ctx, trailKey{}, &trail{guarded: p.guarded})
	r, err := http.NewRequestWithContext(ctx, method, p.url.String(), nil)
	return r, clean(err)
}

// redirect returns where an answer leads, and nil if it is not a redirect. It closes the body of a
// redirect. A public server may not lead to private addresses, so that it cannot make this machine
// ask its own network. https may not lead to http, where others could read and change the bytes.
func redirect(a *http.Response) (*place, error) {
	switch a.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	_ = a.Body.Close() // it is not read
	from, t := a.Request.URL, trailOf(a.Request.Context())
	to, err := from.Parse(a.Header.Get("Location"))
	if err != nil || a.Header.Get("Location") == "" || to.Hostname() == "" {
		return nil, fmt.Errorf("%w: its Location is not an address", errRedirect)
	}
	to.Fragment = ""
	p := &place{to, t.guarded || !t.private}
	switch {
	case to.Scheme != "http" && to.Scheme != "https":
		err = fmt.Errorf("%w: %s:// is neither http nor https", errRedirect, to.Scheme)
	case from.Scheme == "https" && to.Scheme == "http":
		err = fmt.Errorf("%w: from https to http, %s", errRedirect, redactURL(to))
	case to.User != nil:
		err = fmt.Errorf("%w: an address with a user name, %s", errRedirect, redactURL(to))
	case p.guarded && isPrivateHost(to.Hostname()):
		err = fmt.Errorf("%w: from a public server to a private address, %s", errRedirect,
			redactURL(to))
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// credentials are headers that are for one origin only.
var credentials = []string{"Authorization", "Cookie", "Cookie2", "Www-Authenticate"}

// follow sends a request and follows all redirects. Credentials stay in the origin of the request.
// The request of the answer has the last address.
func (c *client) follow(r *http.Request) (*http.Response, error) {
	for steps := 0; ; {
		a, p, err := c.steps(r, &steps)
		if err != nil || p == nil {
			return a, err
		}
		next, err := p.request(r.Context(), r.Method)
		if err != nil {
			return nil, err
		}
		next.Header = withoutCredentials(r.Header)
		r = next
	}
}

// steps sends a request, and follows redirects that stay in its origin, with all its headers. It
// counts them. If the answer leads to another origin, the place is returned, and the answer's body
// is closed.
func (c *client) steps(r *http.Request, steps *int) (*http.Response, *place, error) {
	for {
		a, err := c.do(r)
		if err != nil {
			return nil, nil, err
		}
		p, err := redirect(a)
		if p == nil {
			return a, nil, failedIf(r, err)
		}
		if *steps++; *steps > mostRedirects {
			return nil, nil, failed(r, fmt.Errorf("%w: more than %d times", errRedirect,
				mostRedirects))
		}
		if origin(p.url) != origin(r.URL) {
			return a, p, nil
		}
		next, err := p.request(r.Context(), r.Method)
		if err != nil {
			return nil, nil, err
		}
		next.Header, r = r.Header, next
	}
}

// failedIf is failed, for an error that may be nil.
func failedIf(r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	return failed(r, err)
}

// withoutCredentials returns the headers that another origin may see.
func withoutCredentials(h http.Header) http.Header {
	h = h.Clone()
	for name := range h {
		lower := strings.ToLower(name)
		if strings.Contains(lower, "token") || strings.Contains(lower, "secret") ||
			strings.Contains(lower, "authorization") {
			h.Del(name)
		}
	}
	for _, name := range credentials {
		h.Del(name)
	}
	return h
}

// origin is the scheme, host and port of an address.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// isPrivateHost reports whether a host is named by a private address, or is this machine. Other
// names are looked up when they are connected to.
func isPrivateHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && isPrivate(a)
}

// privateRanges are those that netip does not call private, loopback or link-local. Some of them
// have services that hand out the credentials of a machine.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this network
	netip.MustParsePrefix("100.64.0.0/10"),    // shared by the customers of a provider
	netip.MustParsePrefix("168.63.129.16/32"), // of Azure's machines
	netip.MustParsePrefix("192.0.0.0/24"),     // of protocols
	netip.MustParsePrefix("198.18.0.0/15"),    // of measurements
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved
	netip.MustParsePrefix("fec0::/10"),        // of a site
	netip.MustParsePrefix("64:ff9b:1::/48"),   // translated, of a site
	netip.MustParsePrefix("::/96"),            // IPv4 in the old form
	netip.MustParsePrefix("::ffff:0:0:0/96"),  // translated
	netip.MustParsePrefix("2001::/23"),        // of protocols, and tunnels
}

// embedding are ranges of IPv6 addresses that stand for an IPv4 address, which begins at a byte.
var embedding = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"): 12,
	netip.MustParsePrefix("2002::/16"):    2,
}

// isPrivate reports whether an address is not one of the public network.
func isPrivate(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return true
	}
	for _, r := range privateRanges {
		if r.Contains(a) {
			return true
		}
	}
	for r, at := range embedding {
		if bytes := a.As16(); r.Contains(a) {
			return isPrivate(netip.AddrFrom4([4]byte(bytes[at : at+4])))
		}
	}
	return false
}
