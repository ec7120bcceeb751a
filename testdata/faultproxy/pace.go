package faultproxy

import (
	"net"
	"sync"
	"time"
)

// pace keeps writers below a rate. Its clock runs ahead by the time that the bytes take.
type pace struct {
	mu   sync.Mutex
	next time.Time
}

// slack is how far the clock may lag. Unless time lost in a long sleep is made up for, the rate is
// never reached.
const slack = 20 * time.Millisecond

// wait sleeps until n more bytes are due at a rate of bytes per second; zero is without limit.
func (p *pace) wait(n int, rate int64) {
	if rate <= 0 {
		return
	}
	p.mu.Lock()
	if earliest := time.Now().Add(-slack); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	due := p.next
	p.mu.Unlock()
	time.Sleep(time.Until(due))
}

// pacedListener gives connections that write no faster than the plan says.
type pacedListener struct {
	net.Listener
	proxy *Proxy
}

// Accept waits for the next connection.
func (l pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: c, proxy: l.proxy}, nil
}

// pacedConn is a connection with a pace of its own, besides that of all connections.
type pacedConn struct {
	net.Conn
	proxy *Proxy
	pace  pace
}

// Write writes as fast as the plan allows at that moment.
func (c *pacedConn) Write(b []byte) (written int, err error) {
	for first := true; first || len(b) > 0; first = false {
		plan := c.proxy.plan.Load()
		n := len(b)
		if plan.PerConnection > 0 {
			// Small pieces, so that bytes come evenly: one every five milliseconds.
			n = min(n, max(4096, int(plan.PerConnection/200)))
		}
		n = min(n, 1<<20)
		c.pace.wait(n, plan.PerConnection)
		c.proxy.total.wait(n, plan.Total)
		m, err := c.Conn.Write(b[:n])
		written += m
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// NetConn is the connection below, which can be reset.
func (c *pacedConn) NetConn() net.Conn { return c.Conn }
