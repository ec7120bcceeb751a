package fp8

import "testing"

// forEachImplementation runs test with each implementation that the machine has.
func forEachImplementation(t *testing.T, test func(t *testing.T)) {
	t.Run("generic", test)
}
