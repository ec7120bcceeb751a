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

// patienceUnknown is how long a read goes on after an interrupt if its reader cannot be looked at.
const patienceUnknown = 5 * time.Second

// lookEvery is how often a reader is looked at that was not interrupted.
const lookEvery = 50 * time.Millisecond

// request is the context of a READ. It ends when its reader is dying, and only then.
//
// The kernel interrupts a READ for any signal to the reader, even for one that the reader handles,
// as Go programs do at each preemption. It does not interrupt read-ahead and direct reads. Giving
// up at an interrupt would kill a reader that has mapped the file. Never giving up would keep a
// killed reader from dying.
type request struct {
	*fuse.Context
	interrupted atomic.Int64 // unix ns: when it was first seen
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

// Done never tells, so whoever waits asks Err now and then.
func (r *request) Done() <-chan struct{} { return nil }

// Err is an error once the reader will not wait for the answer. It looks at the reader after an
// interrupt, and now and then without one.
func (r *request) Err() error {
	if !r.gone.Load() && (r.Context.Err() == nil && !r.due() || !r.dying()) {
		return nil
	}
	r.gone.Store(true)
	return context.Canceled
}

// due says whether it is time to look at the reader again.
func (r *request) due() bool {
	now, last := time.Now().UnixNano(), r.looked.Load()
	return now-last > int64(lookEvery) && r.looked.CompareAndSwap(last, now)
}

// dying says whether the reader has been killed, or is gone.
func (r *request) dying() bool {
	if r.Pid == 0 { // of another PID namespace
		return r.Context.Err() != nil && r.impatient()
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(int(r.Pid)) + "/status")
	return err != nil || killed(string(status))
}

// impatient says whether an interrupt is so long ago that the reader is believed dead.
func (r *request) impatient() bool {
	now := time.Now().UnixNano()
	r.interrupted.CompareAndSwap(0, now)
	return now-r.interrupted.Load() > int64(patienceUnknown)
}

// killed reads the status of a process: is it dead, or is a SIGKILL pending? The kernel turns a
// signal without a handler that ends the process into a SIGKILL.
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
