package remote

import (
	"testing"
	"time"
)

// simulated is a store whose rate depends on the requests at once.
type simulated struct {
	*limit
	now   time.Time
	bytes float64
	rate  func(requests int) float64
}

func simulate(most int, rate func(int) float64) *simulated {
	s := &simulated{limit: newLimit(most, timesOf(Options{})), now: time.Unix(1e9, 0), rate: rate}
	s.begin(s.now, 0)
	return s
}

// pass lets time pass, with as many requests as may be.
func (s *simulated) pass(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		tick := s.times.tick
		s.now = s.now.Add(tick)
		if s.now.After(s.until) {
			s.bytes += s.rate(s.size) * tick.Seconds()
			s.full = true
		}
		s.step(s.now, int64(s.bytes))
	}
}

// upTo is a store that gives each request 67 MB/s, up to a total.
func upTo(total float64) func(int) float64 {
	return func(n int) float64 { return min(67e6*float64(n), total) }
}

func TestTheLimitGrowsWhileTheRateGrows(t *testing.T) {
	for _, c := range []struct {
		name         string
		most         int
		total        float64
		least, upper int
	}{
		{"10 Gbit/s", 0, 1.25e9, 16, 64},
		{"100 Gbit/s", 0, 12.5e9, 128, 256},
		{"no bound", 0, 1e12, 256, 256},
		{"1 Gbit/s", 0, 125e6, 16, 32},
		{"fewer are allowed", 40, 1e12, 40, 40},
		{"very few are allowed", 2, 1e12, 2, 2},
	} {
		s := simulate(c.most, upTo(c.total))
		s.pass(10 * time.Second)
		if s.size < c.least || s.size > c.upper {
			t.Errorf("%s: %d requests at once, want %d to %d", c.name, s.size, c.least, c.upper)
		}
	}
}

func TestTheLimitDoesNotGrowIfRequestsDoNotWait(t *testing.T) {
	s := simulate(0, upTo(1e12))
	for range 100 {
		s.now = s.now.Add(time.Second)
		s.step(s.now, int64(s.now.Unix()))
	}
	if s.size != firstRequests {
		t.Errorf("%d requests at once", s.size)
	}
}

func TestRoomForKindsOfRequests(t *testing.T) {
	l := newLimit(0, timesOf(Options{}))
	for _, c := range []struct {
		small, ahead, careful bool
		want                  int
	}{
		{false, false, false, 16},
		{false, true, false, 14},
		{true, false, false, 64},
		{true, false, true, 16},
	} {
		if l.careful = c.careful; l.room(c.small, c.ahead) != c.want {
			t.Errorf("%+v: %d", c, l.room(c.small, c.ahead))
		}
	}
	if n := newLimit(1, timesOf(Options{})).room(false, true); n != 1 {
		t.Errorf("of one request, %d are for read-ahead", n)
	}
}

func TestTheLimitHalvesOncePerStorm(t *testing.T) {
	s := simulate(0, upTo(1e12))
	s.pass(10 * time.Second)
	sent := s.now
	s.now = s.now.Add(time.Second)
	for range 256 {
		s.throttled(s.now, sent, 0)
	}
	if s.size != 128 {
		t.Errorf("%d requests at once after a storm", s.size)
	}
	if wait := s.until.Sub(s.now); wait <= 0 || wait > 2*s.times.busy {
		t.Errorf("a pause of %v", wait)
	}
	s.throttled(s.now.Add(time.Second), s.now.Add(time.Millisecond), 0)
	if s.size != 64 {
		t.Errorf("%d requests at once after the second storm", s.size)
	}
}

func TestTheLimitRecoversSlowly(t *testing.T) {
	s := simulate(0, upTo(1e12))
	s.throttled(s.now, s.now, 0)
	s.answered()
	s.pass(12 * time.Second)
	if s.size <= firstRequests/2 || s.size > 3*firstRequests {
		t.Errorf("%d requests at once", s.size)
	}
}

func TestAStoreIsLeftAloneAsLongAsItWants(t *testing.T) {
	for _, c := range []struct{ wants, want time.Duration }{
		{5 * time.Second, 5 * time.Second},
		{time.Hour, 30 * time.Second}, // more is not waited for
	} {
		s := simulate(0, upTo(1e9))
		s.throttled(s.now, s.now, c.wants)
		if got := s.until.Sub(s.now); got != c.want {
			t.Errorf("asked for %v: a pause of %v", c.wants, got)
		}
	}
}

func TestThePauseGrowsUntilThereIsAnAnswer(t *testing.T) {
	s := simulate(0, upTo(1e9))
	var last time.Duration
	for i := range 12 {
		s.now = s.now.Add(time.Hour)
		s.throttled(s.now, s.now, 0)
		last = s.until.Sub(s.now)
		if least := min(s.times.busy<<i, s.times.longest) / 2; last < least || last > 4*least {
			t.Errorf("pause %d is %v", i, last)
		}
	}
	if s.size != 1 {
		t.Errorf("%d requests at once", s.size)
	}
	s.answered()
	s.now = s.now.Add(time.Hour)
	s.throttled(s.now, s.now, 0)
	if got := s.until.Sub(s.now); got >= last {
		t.Errorf("a pause of %v after an answer, and %v before", got, last)
	}
}
