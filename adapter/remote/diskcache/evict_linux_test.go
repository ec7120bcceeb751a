package diskcache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// used sets when the block of an object was used.
func used(t *testing.T, c *Cache, i int64, ago time.Duration) {
	t.Helper()
	off, n := even.block(i, 0)
	when := time.Now().Add(-ago)
	if err := c.folder.root.Chtimes(block{even.key(i), off, n}.path(), when, when); err != nil {
		t.Fatal(err)
	}
}

// kept lists the objects whose block is there.
func kept(t *testing.T, c *Cache) (all string) {
	t.Helper()
	for i := range even.objects {
		off, n := even.block(i, 0)
		if c.folder.has(block{even.key(i), off, n}) {
			all += fmt.Sprint(i)
		}
	}
	return all
}

func TestTheLeastRecentlyUsedBlocksAreRemoved(t *testing.T) {
	dir := t.TempDir()
	c, w := openCache(t, dir, 4*unit)
	for i := range int64(4) {
		even.write(c, i, 0)
	}
	for i, hours := range []time.Duration{2, 4, 1, 3} {
		used(t, c, int64(i), hours*time.Hour)
	}
	even.write(c, 4, 0) // removes one more than needed, so that this happens rarely
	if got := kept(t, c); got != "024" {
		t.Errorf("objects %s are kept, want 024", got)
	}
	if !even.readAll(t, c, 0, 0) { // so it is not the oldest any more
		t.Error("object 0 is missed")
	}
	even.write(c, 1, 0)
	used(t, c, 1, time.Minute)
	even.write(c, 5, 0)
	if got := kept(t, c); got != "045" {
		t.Errorf("objects %s are kept, want 045", got)
	}
	if dirs, _ := filepath.Glob(filepath.Join(dir, "v1", "??", "*")); len(dirs) != len(kept(t, c)) {
		t.Errorf("empty directories are left: %v", dirs)
	}
	w.want(t)
}

func TestAReadTouchesABlockOnceAMinute(t *testing.T) {
	c, _ := openCache(t, t.TempDir(), 0)
	even.write(c, 0, 0)
	off, n := even.block(0, 0)
	name := block{even.key(0), off, n}.path()
	for _, ago := range []time.Duration{59 * time.Second, 61 * time.Second, 1000 * time.Hour} {
		when := time.Now().Add(-ago)
		if err := c.folder.root.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
		even.readWant(t, c, 0, 0, 5, 1)
		info, err := c.folder.root.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if touched := !info.ModTime().Equal(when); touched != (ago > touchAfter) {
			t.Errorf("last used %v ago: touched is %v", ago, touched)
		}
	}
}

func TestABlockLargerThanTheCacheRemovesNothing(t *testing.T) {
	c, w := openCache(t, t.TempDir(), 2*unit)
	even.write(c, 0, 0)
	c.Write(Key{"o", "large", "v"}, 0, make([]byte, 3*unit))
	if got := kept(t, c); got != "0" {
		t.Errorf("objects %q are kept, want 0", got)
	}
	w.want(t)
}

// Writers and readers of two caches work in one folder with room for a fifth of the blocks. Each
// read is right, and the folder is never above its size.
func TestEvictionUnderLoad(t *testing.T) {
	const workers = 3 // of each cache
	eachSeed(t, func(t *testing.T, r *rand.Rand) {
		w := world{objects: 10, blocks: 6, length: 4 * pieceSize}
		limit := 12 * onDisk(4*pieceSize)
		dir := t.TempDir()
		var caches []*Cache
		for range 2 {
			c, said := openCache(t, dir, limit)
			caches = append(caches, c)
			defer said.want(t)
		}
		var all sync.WaitGroup
		var hits, ended atomic.Int64
		for i := range 2 * workers {
			c, r := caches[i%2], rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
			all.Go(func() {
				defer ended.Add(1)
				for range size.Count(80, 5000) {
					i, j := r.Int64N(w.objects), r.Int64N(w.blocks)
					if w.readAll(t, c, i, j) {
						hits.Add(1)
					} else {
						w.write(c, i, j)
					}
				}
			})
		}
		most := limit + 2*workers*onDisk(4*pieceSize) // files come and go while they are counted
		for ended.Load() < 2*workers {
			if n := bound(t, dir); n > most {
				t.Errorf("%d bytes, above the limit of %d", n, limit)
				break
			}
		}
		all.Wait()
		if n := bound(t, dir); n > limit || n < limit/4 {
			t.Errorf("%d bytes are left, limit %d", n, limit)
		}
		if hits.Load() == 0 {
			t.Error("no read was a hit")
		}
	})
}

// A cache sees what others add and remove, also within the time in which the time of modification
// of a directory does not change.
func TestTheIndexFollowsOtherProcesses(t *testing.T) {
	eachSeed(t, func(t *testing.T, r *rand.Rand) {
		dir := t.TempDir()
		first, _ := openCache(t, dir, 0)
		second, _ := openCache(t, dir, 0)
		for step := range size.Count(100, 3000) {
			c := first
			if r.IntN(2) == 0 {
				c = second
			}
			i, j := r.Int64N(small.objects), r.Int64N(small.blocks)
			off, n := small.block(i, j)
			switch b := (block{small.key(i), off, n}); r.IntN(4) {
			case 0:
				c.discard(b, errDamaged)
			case 1:
				os.Remove(filepath.Join(dir, b.path()))
			case 2:
				if r.IntN(10) == 0 {
					os.RemoveAll(filepath.Join(dir, b.key.dir()))
				}
			default:
				small.write(c, i, j)
			}
			for _, c := range []*Cache{first, second} {
				if r.IntN(3) > 0 {
					wantTotal(t, c, fmt.Sprint("step ", step))
				}
			}
		}
	})
}

// wantTotal compares the index of a cache with a list of its files.
func wantTotal(t *testing.T, c *Cache, when string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(time.Now()); err != nil {
		t.Fatal(err)
	}
	files, err := c.folder.files()
	if err != nil {
		t.Fatal(err)
	}
	var want int64
	for _, f := range files {
		want += f.size
	}
	if c.index.total != want {
		t.Fatalf("%s: the index has %d bytes, the folder %d", when, c.index.total, want)
	}
}

// On some file systems, two changes within a moment leave the same time of modification.
func TestARecentTimeOfModificationIsNotTrusted(t *testing.T) {
	dir := t.TempDir()
	when := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, when, when); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		s    stamp
		want bool
	}{
		{stamp{}, false},
		{stamp{info.ModTime(), info.ModTime()}, false},
		{stamp{info.ModTime(), info.ModTime().Add(time.Second)}, false},
		{stamp{info.ModTime(), info.ModTime().Add(-time.Hour)}, false}, // another clock
		{stamp{info.ModTime(), info.ModTime().Add(3 * time.Second)}, true},
		{stamp{info.ModTime().Add(-1), info.ModTime().Add(time.Hour)}, false},
	} {
		if got := c.s.unchanged(info); got != c.want {
			t.Errorf("%+v: unchanged is %v", c.s, got)
		}
	}
}

// A directory that has not changed for a while is not listed again.
func TestTheIndexListsWhatHasChanged(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCache(t, dir, 0)
	small.fill(c)
	old := time.Now().Add(-time.Minute)
	dirs, err := filepath.Glob(filepath.Join(dir, "v1", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.Chtimes(d, old, old); err != nil {
			t.Fatal(err)
		}
	}
	wantTotal(t, c, "settled")
	for _, f := range c.index.fans {
		for _, s := range f.objects {
			if !s.modified.Equal(old) {
				t.Errorf("a directory is of %v, not of %v", s.modified, old)
			}
			s.bytes++ // stays if it is not listed again
		}
	}
	before := c.index.total
	c.mu.Lock()
	c.refresh(time.Now())
	c.mu.Unlock()
	if got := c.index.total - before; got != small.objects {
		t.Errorf("%d of %d directories were not listed again", got, small.objects)
	}
}

func TestTemporaryFilesOfDeadProcessesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCache(t, dir, 0)
	even.write(c, 0, 0)
	here := "-" + host() + "-"
	temps := map[string]time.Duration{"4096-elsewhere-old": 61 * time.Minute,
		"8192-elsewhere-new":  59 * time.Minute,
		"4096" + here + "old": 61 * time.Minute, "4096" + here + "dead": 0,
		"not ours": 100 * time.Hour}
	for name, age := range temps {
		name, when := filepath.Join(dir, "v1", "tmp", name), time.Now().Add(-age)
		if err := os.WriteFile(name, []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	held, err := c.folder.createTemp("16384" + here + "alive")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, look := range []func(){
		func() { second, _ := openCache(t, dir, 0); second.list(); c = second },
		func() { Prune(dir, Pruning{Limited: true, Size: 1 << 30}) },
	} {
		look()
		var left []string
		names, err := os.ReadDir(filepath.Join(dir, "v1", "tmp"))
		for _, n := range names {
			left = append(left, n.Name())
		}
		if want := []string{"16384" + here + "alive", "8192-elsewhere-new",
			"not ours"}; err != nil || !slices.Equal(left, want) {
			t.Errorf("left: %q (%v), want %q", left, err, want)
		}
	}
	if want := int64(8192 + 16384); c.index.temps != want || c.index.total != want+unit {
		t.Errorf("bytes of temporary files %d, of all %d", c.index.temps, c.index.total)
	}
}

// A file that another process takes for abandoned, before it is held, is not used.
func TestATemporaryFileThatIsRemovedEarly(t *testing.T) {
	c, w := openCache(t, t.TempDir(), 0)
	even.write(c, 0, 0)
	file, err := c.folder.create(tempDir + "/1-x-y")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !c.folder.abandoned(tempDir+"/1-x-y") || c.folder.root.Remove(tempDir+"/1-x-y") != nil {
		t.Error("it is not taken for abandoned")
	}
	if hold(file) {
		t.Error("a file that was removed is held")
	}
	temp := tempName(unit)
	off, n := even.block(1, 0)
	if err := c.folder.place(temp, block{even.key(1), off, n}); !errors.Is(err, errNoRoom) {
		t.Errorf("placing a file that was removed: %v", err)
	}
	w.want(t)
}

// Files that are not blocks are neither counted nor removed.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	hash := strings.Repeat("ab", 32)
	foreign := []string{"notes", "v1/notes", "v1/ab/notes", "v1/ab/" + hash + "/notes",
		"v1/xy/file", "v1/abc/file",
		"v1/ab/" + hash + "/0-1.part"}
	for _, name := range foreign {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, w := openCache(t, dir, 2*unit)
	for i := range even.objects {
		even.write(c, i, 0)
	}
	if got := kept(t, c); got != "5" && got != "45" {
		t.Errorf("objects %q are kept, want the last", got)
	}
	for _, name := range foreign {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	w.want(t)
}

// While another process removes blocks, none are added above the limit.
func TestOneProcessRemovesBlocks(t *testing.T) {
	dir := t.TempDir()
	first, _ := openCache(t, dir, 2*unit)
	second, w := openCache(t, dir, 2*unit)
	even.write(first, 0, 0)
	even.write(first, 1, 0)
	unlock, err := first.folder.lock()
	if err != nil {
		t.Fatal(err)
	}
	even.write(second, 2, 0)
	if got := kept(t, second); got != "01" {
		t.Errorf("objects %q are kept, want 01", got)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	even.write(second, 2, 0)
	if got := kept(t, second); !strings.Contains(got, "2") {
		t.Errorf("objects %q are kept, want 2 too", got)
	}
	w.want(t)
}
