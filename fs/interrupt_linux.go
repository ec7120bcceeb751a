package fs

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// patienceUnknown is how long a read goes on after an interrupt if the reader's status cannot be
// read.
const patienceUnknown = 5 * time.Second

// lookEvery is how often the status of a reader is read if it was not interrupted.
const lookEvery = 50 * time.Millisecond

// request is the context of a READ. It ends only when its reader is dying.
//
// The kernel interrupts a READ for any signal to the reader. That includes signals that the reader
// handles, such as those by which Go programs preempt goroutines. It does not interrupt read-ahead
// and direct reads.
//
// Giving up at an interrupt would kill a reader that has mapped the file. Never giving up would
// keep a killed reader from dying.
type request struct {
	*fuse.Context
	interrupted atomic.Int64 // unix ns: when Err first saw an interrupt
	looked      atomic.Int64 // unix ns: when the reader was last looked at
	gone        atomic.Bool  // the reader is dying
}

// newRequest wraps the context that go-fuse gives a handler.
func newRequest(ctx context.Context) context.Context {
	if c, ok := ctx.(*fuse.Context); ok {
		r := &request{Context: c}
		r.looked.Store(time.Now().UnixNano())
		return r
	}
	return ctx
}

// Done returns nil, since only Err detects the end. A waiting caller polls Err.
func (r *request) Done() <-chan struct{} { return nil }

// Err returns an error if the reader is dying. It reads the reader's status after an interrupt, and
// otherwise at intervals of lookEvery.
func (r *request) Err() error {
	if !r.gone.Load() && (r.Context.Err() == nil && !r.due() || !r.dying()) {
		return nil
	}
	r.gone.Store(true)
	return context.Canceled
}

// due reports whether it is time to read the status again.
func (r *request) due() bool {
	now, last := time.Now().UnixNano(), r.looked.Load()
	return now-last > int64(lookEvery) && r.looked.CompareAndSwap(last, now)
}

// dying reports whether the reader has been killed or has ended.
func (r *request) dying() bool {
	if r.Pid == 0 { // of another PID namespace
		return r.Context.Err() != nil && r.impatient()
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(int(r.Pid)) + "/status")
	return err != nil || killed(string(status))
}

// impatient reports whether the interrupt is older than patienceUnknown. Such a reader is believed
// dead.
func (r *request) impatient() bool {
	now := time.Now().UnixNano()
	r.interrupted.CompareAndSwap(0, now)
	return now-r.interrupted.Load() > int64(patienceUnknown)
}

// killed reports whether a process is dead or has a SIGKILL pending, by its status. A signal that
// ends a process without a handler counts: the kernel turns it into a SIGKILL.
func killed(status string) bool {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			if set, err := strconv.ParseUint(value, 16, 64); err == nil && set&(1<<8) != 0 {
				return true
			}
		}
	}
	return false
}
