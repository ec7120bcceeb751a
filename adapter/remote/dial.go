package remote

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// dialer connects to all addresses of a name in turn. Large services have a name with many
// addresses, and some are much slower than others.
type dialer struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	to     dialContext // one address

	mu    sync.Mutex
	names map[string]*resolved
}

// resolved is the addresses of a name.
type resolved struct {
	addresses []netip.Addr
	until     time.Time
	turn      int
}

const (
	addressesLast = 30 * time.Second       // before a name is looked up again
	nextAddress   = 300 * time.Millisecond // before another address is tried too
	dialPatience  = 15 * time.Second       // for one address
)

func newDialer() *dialer {
	to := net.Dialer{Timeout: dialPatience, KeepAlive: 30 * time.Second}
	return &dialer{to: to.DialContext, names: map[string]*resolved{},
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}}
}

// dial connects to the next address of a host.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return d.connect(ctx, network, address, false)
}

// dialGuarded connects to the next address of a host that is not private. What was looked up is
// what is connected to, so a name server cannot change its mind in between.
func (d *dialer) dialGuarded(ctx context.Context, network, address string) (net.Conn, error) {
	return d.connect(ctx, network, address, true)
}

func (d *dialer) connect(ctx context.Context, network, address string, guard bool) (
	net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := d.next(ctx, host)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, a := range addresses {
		if !guard || !isPrivate(a) {
			list = append(list, net.JoinHostPort(a.String(), port))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %s is the private address %v", errRedirect, host, addresses[0])
	}
	conn, err := d.race(ctx, network, list)
	if err != nil {
		d.forget(host)
	}
	return conn, err
}

// next returns the addresses of a host, with the one first whose turn it is.
func (d *dialer) next(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.names[host]
	if r == nil || time.Now().After(r.until) {
		d.mu.Unlock()
		addresses, err := d.lookup(ctx, host)
		if err == nil && len(addresses) == 0 {
			err = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		d.mu.Lock()
		if err != nil {
			return nil, err
		}
		r = &resolved{addresses: addresses, until: time.Now().Add(addressesLast)}
		if old := d.names[host]; old != nil {
			r.turn = old.turn
		}
		d.names[host] = r
	}
	r.turn++
	return inTurn(r.addresses, r.turn-1), nil
}

func (d *dialer) forget(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.names[host]; r != nil {
		r.until = time.Time{}
	}
}

// inTurn rotates the addresses of each family, and alternates between the families. The family of
// the first address stays first, since the system prefers it.
func inTurn(addresses []netip.Addr, turn int) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addresses {
		a = a.Unmap()
		if a.Is4() == addresses[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var list []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			list = append(list, first[(turn+i)%len(first)])
		}
		if i < len(second) {
			list = append(list, second[(turn+i)%len(second)])
		}
	}
	return list
}

// dialed is the outcome of connecting to one address.
type dialed struct {
	conn net.Conn
	err  error
}

// race connects to the first address, and to the next one too if that fails or takes long. The
// first connection wins, and the others are closed.
func (d *dialer) race(ctx context.Context, network string, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, len(addresses))
	begun, ended := 0, 0
	begin := func() {
		address := addresses[begun]
		begun++
		go func() {
			conn, err := d.to(ctx, network, address)
			results <- dialed{conn, err}
		}()
	}
	defer func() { go closeLate(results, begun-ended) }()
	ticker := time.NewTicker(nextAddress)
	defer ticker.Stop()
	var failure error
	for begin(); ; {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				return r.conn, nil
			}
			if failure == nil {
				failure = r.err
			}
			if begun < len(addresses) {
				begin()
			} else if begun == ended {
				return nil, failure
			}
		case <-ticker.C:
			if begun < len(addresses) {
				begin()
			}
		}
	}
}

// closeLate closes n connections that come too late.
func closeLate(results <-chan dialed, n int) {
	for range n {
		if r := <-results; r.conn != nil {
			_ = r.conn.Close() // nothing was sent
		}
	}
}
