//go:build linux

package main

import (
	"math/rand/v2"
	"testing"
)

const mib = 1 << 20

// resident makes up what a process has, as a rule around 150 MiB, and 5 more or less.
func resident(n int, more func(i int) int64) series {
	rng := rand.New(rand.NewPCG(1, 2))
	s := series{what: "bytes resident", bound: 16 * mib}
	for i := range n {
		s.values = append(s.values, 150*mib+rng.Int64N(10*mib)-5*mib+more(i))
	}
	return s
}

func TestWhatDoesNotGrowIsFlat(t *testing.T) {
	for name, more := range map[string]func(i int) int64{
		"noise":                func(int) int64 { return 0 },
		"teeth of a saw":       func(i int) int64 { return int64(i%25) * mib },
		"a peak at the end":    func(i int) int64 { return int64(i/295) * 100 * mib },
		"a little more load":   func(i int) int64 { return int64(i/150) * 6 * mib },
		"slowly, but too slow": func(i int) int64 { return int64(i) * 10 * mib / 300 },
		"shrinking":            func(i int) int64 { return -int64(i) * 50 * mib / 300 },
	} {
		if s := resident(300, more); !s.flat() {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestWhatGrowsIsNotFlat(t *testing.T) {
	for name, more := range map[string]func(i int) int64{
		"steadily":             func(i int) int64 { return int64(i) * 24 * mib / 300 },
		"in the second half":   func(i int) int64 { return int64(max(i-150, 0)) * 40 * mib / 150 },
		"and stays":            func(i int) int64 { return int64(min(i, 100)) * 24 * mib / 100 },
		"in steps":             func(i int) int64 { return int64(i/100) * 12 * mib },
		"under teeth of a saw": func(i int) int64 { return int64(i%25)*mib + int64(i)*24*mib/300 },
		"late, but much":       func(i int) int64 { return int64(max(i-240, 0)) * 2 * mib },
	} {
		if s := resident(300, more); s.flat() {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestOneDescriptorNowAndThenIsALeak(t *testing.T) {
	s := series{what: "descriptors", bound: descriptorBound}
	for i := range 300 {
		s.values = append(s.values, 17+int64(i%7/6)) // a request for the status
	}
	if !s.flat() {
		t.Error(s)
	}
	for i := range s.values {
		s.values[i] += int64(i / 30)
	}
	if s.flat() {
		t.Error(s)
	}
}

func TestWhatWasHardlySeenIsNotFlat(t *testing.T) {
	for n := range fewest {
		if s := resident(n, func(int) int64 { return 0 }); s.flat() {
			t.Error(s)
		}
	}
}
