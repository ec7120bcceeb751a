package remote

import (
	"math"
	"testing"
	"time"
)

func TestTheRateIsThatOfTheLastSeconds(t *testing.T) {
	var m meter
	begin := time.Unix(1000, 0)
	if got := m.rate(begin); got != 0 {
		t.Errorf("at first %v", got)
	}
	for i := range 100 {
		m.add(begin.Add(time.Duration(i)*100*time.Millisecond), 100)
	}
	end := begin.Add(10 * time.Second)
	if got := m.rate(end); math.Abs(got-1000) > 1 {
		t.Errorf("rate %v, want 1000", got)
	}
	if got := m.rate(end.Add(time.Minute)); got != 0 {
		t.Errorf("later %v", got)
	}
}

func TestTheUsualSpeedIsAMedian(t *testing.T) {
	var s speeds
	for i := range 200 {
		if i < enoughSpeeds && s.usual() != 0 {
			t.Fatalf("a median of %d", i)
		}
		s.add(leastSpeed, time.Second, true)
		s.add(leastSpeed-1, time.Hour, true) // small ones say nothing
		s.add(leastSpeed, time.Hour, false)
	}
	s.add(leastSpeed, time.Hour, true)
	if s.usual() != leastSpeed || s.duration() != 1 {
		t.Errorf("usual %v, %v", s.usual(), s.duration())
	}
}
