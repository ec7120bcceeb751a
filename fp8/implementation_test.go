package fp8

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// forEachImplementation runs test with each implementation that the machine has.
func forEachImplementation(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for i := generic; i <= best(); i++ {
		t.Run(i.String(), func(t *testing.T) {
			defer func(was implementation) { using = was; pin(false) }(using)
			using = i
			pin(true)
			test(t)
		})
	}
}

// TestImplementationIsTheRequiredOne fails if the kernels in use are not named in
// DEQUANTFS_REQUIRE. A silent fall-back to slower kernels would otherwise pass.
func TestImplementationIsTheRequiredOne(t *testing.T) {
	required := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ",")
	for i := avx2; i <= avx512; i++ {
		if slices.Contains(required, i.String()) && best() < i {
			t.Errorf("%v is required, but the best here is %v", i, best())
		}
	}
	if Implementation() != best().String() {
		t.Errorf("%s runs, but the best here is %v", Implementation(), best())
	}
}
