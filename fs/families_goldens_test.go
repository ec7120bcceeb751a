package fs

import (
	"strings"
	"testing"
)

// familyGoldens reads the goldens of the families. The layouts of transformers and of sources that
// it saved, and Mistral-Small-4, are given in BF16 alone.
func familyGoldens(t testing.TB) map[string]goldenSource {
	t.Helper()
	return goldensIn(t, "families/*/*", 62, func(
		g goldenSource, name string, expected goldenLayouts,
	) {
		library, _, _ := strings.Cut(name, "/")
		alone := library == "transformers" || library == "unmerge" || name == "native/mistral4_bf16"
		for layout, tensors := range expected {
			for dtype := range goldenDTypes {
				if dtype == "bf16" || !alone {
					g.expect(layout, dtype, tensors)
				}
			}
		}
	})
}

func TestEveryFamilyEqualsItsLibrary(t *testing.T) {
	wantGoldens(t, familyGoldens(t))
}
