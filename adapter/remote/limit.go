package remote

import (
	"cmp"
	"time"
)

// Requests at once.
const (
	firstRequests = 16
	mostRequests  = 256
)

// limit is how many requests may be in flight at once. It grows while that makes the store faster,
// and halves when the store asks for fewer.
//
// Until the store has complained, a step up doubles the limit. Later it adds a sixteenth. A step up
// pays if the rate grows by a quarter of what the requests grew by. If it does not pay it is taken
// back, and tried again after a while.
type limit struct {
	size, most int
	times      times

	halved time.Time // when the size was last halved
	until  time.Time // no request is sent before
	busy   int       // halvings since the last answer

	full    bool      // requests had to wait since the last step
	at      time.Time // of the last step
	bytes   int64     // that had arrived at the last step
	before  int       // the size before the last step up; 0: the last step was not up
	rate    float64   // before the last step up
	hold    int       // steps until the next step up
	careful bool      // the store has complained
}

func newLimit(most int, t times) *limit {
	most = cmp.Or(max(most, 0), mostRequests)
	return &limit{size: min(firstRequests, most), most: most, times: t}
}

// Steps of the limit.
const (
	stepTicks = 2  // between steps
	holdSteps = 10 // after a step up that did not pay
)

// room is how many requests may be in flight when one more is sent. Requests ahead leave an eighth
// to readers. Requests for small ranges take little of the line, and open a checkpoint sooner.
func (l *limit) room(small, ahead bool) int {
	switch {
	case ahead:
		return l.size - l.size/8
	case small && !l.careful:
		return min(4*l.size, l.most)
	}
	return l.size
}

// begin measures from now on.
func (l *limit) begin(now time.Time, bytes int64) {
	l.at, l.bytes, l.full, l.before = now, bytes, false, 0
}

// step changes the size, given how many bytes have arrived until now. It is called at each tick.
func (l *limit) step(now time.Time, bytes int64) {
	passed := now.Sub(l.at)
	if passed < stepTicks*l.times.tick {
		return
	}
	rate := float64(bytes-l.bytes) / passed.Seconds()
	full := l.full
	l.at, l.bytes, l.full = now, bytes, false
	switch {
	case !full || now.Before(l.until):
		l.before = 0
	case l.before > 0 && !l.paid(rate):
		l.size, l.before, l.hold = l.before, 0, holdSteps
	case l.hold > 0:
		l.hold--
		l.before = 0
	default:
		l.up(rate)
	}
}

// paid reports whether the last step up was of use.
func (l *limit) paid(rate float64) bool {
	grown := float64(l.size)/float64(l.before) - 1
	return rate >= l.rate*(1+grown/4)
}

func (l *limit) up(rate float64) {
	more := l.size
	if l.careful {
		more = 1 + l.size/16
	}
	l.before, l.rate = l.size, rate
	l.size = min(l.size+more, l.most)
	if l.size == l.before {
		l.before = 0
	}
}

// throttled halves the size, and pauses. Requests that were sent before the last halving tell
// nothing new.
func (l *limit) throttled(now, sent time.Time, after time.Duration) {
	if after > 0 {
		l.pause(now, min(after, l.times.longest))
	}
	if sent.Before(l.halved) {
		return
	}
	l.size = max(l.size/2, 1)
	l.halved, l.careful, l.before, l.hold = now, true, 0, holdSteps
	if after <= 0 {
		l.pause(now, jitter(min(l.times.busy<<min(l.busy, 10), l.times.longest)))
	}
	l.busy++
}

func (l *limit) pause(now time.Time, d time.Duration) {
	if until := now.Add(d); until.After(l.until) {
		l.until = until
	}
}

// answered notes that a request was answered.
func (l *limit) answered() { l.busy = 0 }
