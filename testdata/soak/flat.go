//go:build linux

package main

import (
	"fmt"
	"slices"
)

// series is how much there was of something, seen again and again at about equal intervals, and by
// how much that may grow.
type series struct {
	what   string
	bound  int64
	values []int64
}

// fewest is how often something has to be seen before its growth is judged.
const fewest = 16

// flat says whether it has been seen often enough and has not grown, by either of two measures: a
// few high values pull a line, but not a median; and a line shows all of a steady growth, but
// medians of quarters only three quarters of it. What shrinks is not a leak.
func (s series) flat() bool {
	return len(s.values) >= fewest && max(s.fitted(), s.quarters()) <= s.bound
}

// fitted is the rise of a line of least squares over the whole series.
func (s series) fitted() int64 {
	n := float64(len(s.values))
	var mean, up, across float64
	for _, v := range s.values {
		mean += float64(v) / n
	}
	for i, v := range s.values {
		x := float64(i) - (n-1)/2
		up += x * (float64(v) - mean)
		across += x * x
	}
	return int64(up / across * (n - 1))
}

// quarters is the difference of the medians of the first and the last quarter.
func (s series) quarters() int64 {
	n := len(s.values)
	return median(s.values[n-n/4:]) - median(s.values[:n/4])
}

// String tells everything that is known.
func (s series) String() string {
	if len(s.values) < fewest {
		return fmt.Sprintf("%s: seen only %d times", s.what, len(s.values))
	}
	return fmt.Sprintf("%s: %d to %d, median %d; grown by %d along a line and by %d between "+
		"quarters, %d allowed; seen %d times", s.what,
		slices.Min(s.values), slices.Max(s.values), median(s.values), s.fitted(), s.quarters(),
		s.bound, len(s.values))
}

func median(values []int64) int64 { return slices.Sorted(slices.Values(values))[len(values)/2] }
