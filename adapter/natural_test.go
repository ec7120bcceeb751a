package adapter

import (
	"slices"
	"testing"
)

func TestNaturalOrderCountsNumbersAsNumbers(t *testing.T) {
	want := []string{
		"", "1", "01", "2", "10", "a", "a-1", "a-1-of-2", "a-2", "a-10", "a1b1", "a1b02", "a1b10", "a2",
		"a99999999999999999999", "a100000000000000000000", "b",
	}
	for i := range want {
		for j := range want {
			if got := natural(want[i], want[j]); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q, %q: %d", want[i], want[j], got)
			}
		}
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, natural)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
