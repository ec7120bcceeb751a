package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The goldens are what from_hf of the reference's adapters made of small checkpoints.
func TestNativeEqualsTheAdapters(t *testing.T) {
	paths, err := filepath.Glob("../testdata/golden/families/native/*/expected.json")
	if err != nil || len(paths) < 3 {
		t.Fatalf("%d goldens, error %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			equalNative(t, dict(t, openedAt(t, filepath.Dir(path)), Options{Layout: LayoutNative}),
				path)
		})
	}
}

// equalNative compares a view in BF16 with the layout native of an expected.json.
func equalNative(t *testing.T, d *StateDict, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Native map[string]struct {
			Shape               []int64
			DType, SHA256, BF16 string
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if d.Len() != len(golden.Native) || d.Len() == 0 {
		t.Errorf("%d tensors, want %d", d.Len(), len(golden.Native))
	}
	for name, want := range golden.Native {
		got, ok := d.Tensor(name)
		if !ok {
			t.Errorf("%s: missing", name)
			continue
		}
		if want.DType == "" {
			want.DType, want.SHA256 = "BF16", want.BF16
		}
		sum := sha256.Sum256(content(t, got))
		if hex.EncodeToString(sum[:]) != want.SHA256 || got.DType().String() != want.DType ||
			!slices.Equal(got.Shape(), want.Shape) {
			t.Errorf("%s: %s %v, or other bytes than the adapter's: want %s %v", name,
				got.DType(), got.Shape(), want.DType, want.Shape)
		}
	}
}
