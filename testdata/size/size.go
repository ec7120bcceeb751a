// Package size says how much a test tries. Tests run small by default; with DEQUANTFS_FULL=1, which
// .ci/run full sets, they run with their full counts.
//
//	for _, seed := range size.Seeds(t) {
//		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
//			r := rand.New(rand.NewPCG(seed, 0))
//			for range size.Count(300, 10_000) / 3 {
//				… an operation that is answered within size.Patience() …
//			}
//		})
//	}
//
// Only tests import it.
package size

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// The environment, which go test takes into account when it looks for a cached result.
const (
	fullEnv = "DEQUANTFS_FULL" // not empty: the full counts
	seedEnv = "DEQUANTFS_SEED" // the first seed; .ci/run derives it from the commit
)

// Full reports whether tests run with their full counts.
func Full() bool { return os.Getenv(fullEnv) != "" }

// Count gives the count of the size that runs.
func Count(small, full int) int {
	if Full() {
		return full
	}
	return small
}

// Patience is how long an operation may take before a test calls it hung. It is a limit that only a
// hang reaches: no test asserts that something was faster.
func Patience() time.Duration { return time.Duration(Count(1, 5)) * time.Second }

// Seeds gives three seeds, which differ from commit to commit in .ci/run and are 1, 2 and 3
// elsewhere. A test that fails says how to have the same ones again.
func Seeds(t testing.TB) []uint64 {
	t.Helper()
	first, err := parseSeed(os.Getenv(seedEnv))
	if err != nil {
		t.Fatalf("%s: %v", seedEnv, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat it: %s=%d", seedEnv, first)
		}
	})
	return []uint64{first, first + 1, first + 2}
}

// parseSeed reads a seed; no text is 1.
func parseSeed(text string) (uint64, error) {
	if text == "" {
		return 1, nil
	}
	return strconv.ParseUint(text, 10, 64)
}
