package diskcache

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// oneBlock makes a cache with one block, and gives the name of its file.
func oneBlock(t *testing.T) (c *Cache, w *warnings, file string) {
	t.Helper()
	dir := t.TempDir()
	c, w = openCache(t, dir, 0)
	small.write(c, 0, 0)
	files, _ := filesIn(t, dir)
	if len(files) != 1 {
		t.Fatalf("files %v", files)
	}
	return c, w, files[0]
}

// gone requires that a damaged block is missed, that its file is removed, and that it can be
// written again.
func gone(t *testing.T, c *Cache, file string) {
	t.Helper()
	if small.readAll(t, c, 0, 0) {
		t.Error("a damaged block is a hit")
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is not removed: %v", err)
	}
	small.write(c, 0, 0)
	if !small.readAll(t, c, 0, 0) {
		t.Error("it is missed after it was written again")
	}
}

// flip changes one bit of a file.
func flip(t *testing.T, file string, bit int64) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[bit/8] ^= 1 << (bit % 8)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFlippedBitIsAMiss(t *testing.T) {
	c, w, file := oneBlock(t)
	_, n := small.block(0, 0)
	end := fileSize(n)
	footer := end - footerSize
	for region, r := range map[string][2]int64{
		"data": {0, n}, "last piece": {n - 77, n}, "CRCs": {n, footer}, "magic": {footer,
			footer + 8},
		"offset": {footer + 8, footer + 16}, "length": {footer + 16, footer + 24},
		"lengths": {footer + 24, footer + headSize}, "key": {footer + headSize,
			footer + headSize + 50},
		"padding": {end - 1000, end - crcSize}, "CRC of the footer": {end - crcSize, end},
	} {
		t.Run(region, func(t *testing.T) {
			eachSeed(t, func(t *testing.T, random *rand.Rand) {
				for range size.Count(4, 300) {
					flip(t, file, 8*r[0]+random.Int64N(8*(r[1]-r[0])))
					gone(t, c, file)
				}
			})
		})
	}
	w.want(t, "a block was damaged and is fetched again") // once, not hundreds of times
}

// A read of part of a block checks the pieces that it returns.
func TestDamageElsewhereInABlock(t *testing.T) {
	c, _, file := oneBlock(t)
	flip(t, file, 8*(3*pieceSize+5))
	if !small.readWant(t, c, 0, 0, 0, 3*pieceSize) || !small.readWant(t, c, 0, 0, 4*pieceSize,
		pieceSize) {
		t.Error("pieces that are right are missed")
	}
	if small.readWant(t, c, 0, 0, 3*pieceSize-1, 2) {
		t.Error("a piece that is wrong is a hit")
	}
	gone(t, c, file)
}

func TestTornFilesAreMisses(t *testing.T) {
	c, _, file := oneBlock(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, n := small.block(0, 0)
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, length := range []int64{0, 1, pieceSize, n - 1, n, n + 1, n + 4, fileSize(n) - 1} {
		write(whole[:length])
		gone(t, c, file)
		torn := make([]byte, fileSize(n)) // a crash may leave the length, but not the bytes
		copy(torn, whole[:length])
		write(torn)
		gone(t, c, file)
	}
	write(append(whole, 0))
	gone(t, c, file)
	for at := int64(0); at < n; at += pieceSize {
		hole := append([]byte{}, whole...)
		clear(hole[at:min(at+4096, n)])
		write(hole)
		gone(t, c, file)
	}
}

func TestAnotherFileUnderTheName(t *testing.T) {
	c, _, file := oneBlock(t)
	off, n := small.block(0, 0)
	others := map[string]block{
		"origin":  {Key{"http://host/folder/", small.key(0).Object, small.key(0).Version}, off, n},
		"object":  {small.key(1), off, n},
		"version": {Key{small.key(0).Origin, small.key(0).Object, "etag1"}, off, n},
		"offset":  {small.key(0), off + 1, n},
	}
	for name, b := range others {
		t.Run(name, func(t *testing.T) {
			c.Write(b.key, b.off, small.content(1, 0))
			if err := os.Rename(filepath.Join(c.folder.name, b.path()), file); err != nil {
				t.Fatal(err)
			}
			gone(t, c, file)
		})
	}
}

// Files that a program of this user has put there by mistake, or another user on purpose.
func TestHostileFilesAreMisses(t *testing.T) {
	c, _, file := oneBlock(t)
	copied := filepath.Join(t.TempDir(), "copy")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"symlink out of the folder": func() error { return os.Symlink(copied, file) },
		"symlink to itself":         func() error { return os.Symlink(filepath.Base(file), file) },
		"empty directory":           func() error { return os.Mkdir(file, 0o700) },
		"pipe":                      func() error { return syscall.Mkfifo(file, 0o600) },
		"writable by others": func() error {
			return errors.Join(os.WriteFile(file, data, 0o600), os.Chmod(file, 0o666))
		},
		"of another user": func() error {
			return errors.Join(os.WriteFile(file, data, 0o600),
				asRoot(func() error { return os.Chown(file, 4321, -1) }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.Remove(file), put()); err != nil {
				t.Fatal(err)
			}
			if small.readAll(t, c, 0, 0) && (name != "of another user" || os.Geteuid() == 0) {
				t.Error("it is a hit")
			}
			os.Remove(file)
			small.write(c, 0, 0)
			if !small.readAll(t, c, 0, 0) {
				t.Error("the block is missed after it was written again")
			}
		})
	}
}

// asRoot does what only root can do.
func asRoot(do func() error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return do()
}

// A file that changes between two reads is noticed by the second.
func TestDamageAfterARead(t *testing.T) {
	c, _, file := oneBlock(t)
	for range 3 {
		if !small.readAll(t, c, 0, 0) {
			t.Fatal("the block is missed")
		}
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("wrong"), 2*pieceSize)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		gone(t, c, file)
	}
}

func TestNamesOfBlocks(t *testing.T) {
	for _, c := range []struct{ off, n int64 }{{0, 1}, {8388608, 8388608}, {1 << 60, mostBytes}} {
		if off, n, ok := parseName(blockName(c.off, c.n)); !ok || off != c.off || n != c.n {
			t.Errorf("%v: %d, %d, %v", c, off, n, ok)
		}
	}
	for _, name := range []string{"", "-", "1", "1-", "-1", "-1-1", "+1-1", "1-+1", "01-1", "1-01",
		"1-0", "1-1-1", "1 -1",
		"1-1.tmp", "99999999999999999999-1", "1-99999999999"} {
		if _, _, ok := parseName(name); ok {
			t.Errorf("%q is taken for a block", name)
		}
	}
}
