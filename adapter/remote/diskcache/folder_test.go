package diskcache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderForThisUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	c, _ := openCache(t, dir, 0)
	small.write(c, 0, 0)
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFoldersThatOthersCanWriteAreRefused(t *testing.T) {
	for mode, want := range map[os.FileMode]string{0o777: "other users write",
		0o770: "other users write",
		0o702: "other users write", 0o1777: "other users write", 0o755: "", 0o500: ""} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		c, err := Open(dir, Options{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("mode %o: error %v, want %q", mode, err, want)
		}
		if err == nil {
			c.Close()
		} else if !strings.HasPrefix(err.Error(), dir) {
			t.Errorf("the error %q does not name the folder", err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 4321, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(),
		"belongs to user 4321") {
		t.Errorf("a folder of another user: error %v", err)
	}
}

func TestWhatIsNotAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Join(file, "below"), ""} {
		if c, err := Open(name, Options{}); err == nil {
			c.Close()
			t.Errorf("%q is taken for a folder", name)
		}
	}
	if _, err := Sources(filepath.Join(file, "..", "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("listing a folder that is missing: %v", err)
	}
}

// Symlinks in the folder do not lead out of it, neither for reads nor for writes.
func TestSymlinksDoNotLeadOut(t *testing.T) {
	for _, link := range []string{"v1", "v1/tmp", "dir", "parent", "lock"} {
		t.Run(link, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			hash := small.key(0).dir()
			name := map[string]string{"dir": hash, "parent": filepath.Dir(hash)}[link]
			if name == "" {
				name = link
			}
			other, _ := openCache(t, outside, 0)
			small.write(other, 0, 0)
			before := bound(t, outside)
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, name), filepath.Join(dir,
				name)); err != nil {
				t.Fatal(err)
			}
			c, _ := openCache(t, dir, 2*onDisk(small.length))
			small.readAll(t, c, 0, 0)
			small.fill(c)
			small.count(t, c)
			if n := bound(t, outside); n != before {
				t.Errorf("%d bytes outside, before it were %d", n, before)
			}
			if temps, _ := os.ReadDir(filepath.Join(outside, "v1", "tmp")); len(temps) > 0 {
				t.Errorf("temporary files outside: %v", temps)
			}
		})
	}
}
