package size

import (
	"slices"
	"testing"
	"time"
)

func TestSmallUnlessFullIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		full     string
		count    int
		patience time.Duration
	}{{"", 300, time.Second}, {"1", 10_000, 5 * time.Second}} {
		t.Setenv(fullEnv, c.full)
		if n, p := Count(300, 10_000), Patience(); n != c.count || p != c.patience {
			t.Errorf("%s=%q: %d with a patience of %v, not %d and %v", fullEnv, c.full, n, p,
				c.count, c.patience)
		}
	}
}

func TestSeedsFollowTheEnvironment(t *testing.T) {
	for text, want := range map[string][]uint64{"": {1, 2, 3}, "41": {41, 42, 43},
		"4294967295": {4294967295, 4294967296, 4294967297}} {
		t.Setenv(seedEnv, text)
		if got := Seeds(t); !slices.Equal(got, want) {
			t.Errorf("%s=%q: %v, not %v", seedEnv, text, got, want)
		}
	}
	if _, err := parseSeed("deadbeef"); err == nil {
		t.Error("a seed that is not a number was taken")
	}
}
