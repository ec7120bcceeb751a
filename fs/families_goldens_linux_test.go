package fs

import "testing"

func TestEveryMountedFamilyEqualsItsLibrary(t *testing.T) {
	wantMountedGoldens(t, familyGoldens(t), "pread")
}
