package remote

import (
	"slices"
	"time"
)

// meterSeconds is how many seconds the rate is measured over.
const meterSeconds = 4

// meter measures the rate of the last seconds.
type meter struct {
	seconds [meterSeconds + 1]struct{ at, bytes int64 }
}

// add counts bytes.
func (m *meter) add(now time.Time, n int64) {
	s := &m.seconds[now.Unix()%int64(len(m.seconds))]
	if s.at != now.Unix() {
		s.at, s.bytes = now.Unix(), 0
	}
	s.bytes += n
}

// rate is the bytes per second of the last meterSeconds seconds, and of the part of this one that
// has passed.
func (m *meter) rate(now time.Time) float64 {
	var sum, first int64
	first = now.Unix()
	for _, s := range m.seconds {
		if s.at > now.Unix()-int64(len(m.seconds)) && s.at <= now.Unix() {
			sum += s.bytes
			first = min(first, s.at)
		}
	}
	return float64(sum) / max(now.Sub(time.Unix(first, 0)).Seconds(), 1)
}

// speeds remembers how fast the last requests were.
type speeds struct {
	rates, times [64]float64 // bytes per second, and seconds, of the last requests
	count        int
}

// leastSpeed is the size of a request whose speed says something about others.
const leastSpeed = 1 << 20

// add remembers the speed of a request that ended, or was too slow.
func (s *speeds) add(bytes int64, took time.Duration, counts bool) {
	if !counts || bytes < leastSpeed || took <= 0 {
		return
	}
	at := s.count % len(s.rates)
	s.rates[at] = float64(bytes) / took.Seconds()
	s.times[at] = took.Seconds()
	s.count++
}

// enoughSpeeds is how many requests make a median.
const enoughSpeeds = 8

// usual is the median speed of requests; 0 if too few have ended.
func (s *speeds) usual() float64 { return s.median(&s.rates) }

// duration is the median time that a request takes; 0 if too few have ended.
func (s *speeds) duration() float64 { return s.median(&s.times) }

func (s *speeds) median(of *[64]float64) float64 {
	if s.count < enoughSpeeds {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of[:min(s.count, len(of))]))
	return sorted[len(sorted)/2]
}
