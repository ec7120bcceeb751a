package inmemory

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDirIsRemovedAtTheEnd(t *testing.T) {
	var dirs []string
	t.Run("inside", func(t *testing.T) {
		for range 2 {
			dir := Dir(t)
			dirs = append(dirs, dir)
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
	if dirs[0] == dirs[1] {
		t.Errorf("%s twice", dirs[0])
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}
