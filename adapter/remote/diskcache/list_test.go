package diskcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// twoSources makes a cache with two sources: objects 0 to 3 of one, and a newer version of object
// 0, and one object of another.
func twoSources(t *testing.T) (dir string, c *Cache) {
	t.Helper()
	dir = t.TempDir()
	c, _ = openCache(t, dir, 0)
	small.fill(c)
	k := small.key(0)
	k.Version = "newer"
	c.Write(k, 0, []byte("newer"))
	c.Write(Key{"hf://org/name", "model.safetensors", "sha"}, 0, []byte("other"))
	return dir, c
}

func TestSourcesAreCounted(t *testing.T) {
	dir, _ := twoSources(t)
	got, err := Sources(dir)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	var bytes int64
	for i := range small.objects {
		for j := range small.blocks {
			_, n := small.block(i, j)
			bytes += onDisk(n)
		}
	}
	blocks := int(small.objects * small.blocks)
	for i, want := range []Source{
		{"hf://org/name", 1, 1, onDisk(5), time.Time{}},
		{"https://host/folder/", 4, blocks + 1, bytes + onDisk(5), time.Time{}},
	} {
		if age := time.Since(got[i].Used); age > time.Hour || age < -time.Hour {
			t.Errorf("%s was used %v ago", want.Origin, age)
		}
		got[i].Used = time.Time{}
		if got[i] != want {
			t.Errorf("%+v, want %+v", got[i], want)
		}
	}
	if none, err := Sources(t.TempDir()); err != nil || len(none) != 0 {
		t.Errorf("an empty folder has %v (%v)", none, err)
	}
}

// The name of a source is read from the first footer that is right.
func TestSourcesOfDamagedBlocks(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCache(t, dir, 0)
	for j := range small.blocks {
		small.write(c, 0, j)
	}
	files, _ := filesIn(t, dir)
	for i, name := range files {
		got, err := Sources(dir)
		if err != nil || len(got) != 1 || got[0].Origin != small.key(0).Origin ||
			got[0].Blocks != len(files) {
			t.Errorf("with %d damaged blocks: %+v (%v)", i, got, err)
		}
		if err := os.WriteFile(name, []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Sources(dir); err != nil || len(got) != 1 || got[0].Origin != "" ||
		got[0].Blocks != len(files) {
		t.Errorf("with damaged blocks alone: %+v (%v)", got, err)
	}
}

func TestPrune(t *testing.T) {
	all := int(small.objects*small.blocks) + 2
	for name, c := range map[string]struct {
		p    Pruning
		want int // blocks that are removed
	}{
		"everything":      {Pruning{}, all},
		"down to nothing": {Pruning{Limited: true}, all},
		"one source":      {Pruning{Origins: []string{"hf://org/name"}}, 1},
		"without its last slash": {Pruning{Origins: []string{"https://host/folder"}},
			all - 1},
		"a folder above it": {Pruning{Origins: []string{"https://host/"}}, all - 1},
		"both sources": {Pruning{Origins: []string{"hf://org/name",
			"https://host"}}, all},
		"what is old":            {Pruning{Older: time.Hour}, 6},
		"what is older than all": {Pruning{Older: 50 * time.Hour}, 0},
		"old, of a source without any": {Pruning{Older: time.Hour,
			Origins: []string{"hf://org/name"}}, 0},
		"what is left fits": {Pruning{Limited: true, Size: 1 << 40}, 0},
		"old, or too much":  {Pruning{Limited: true, Older: time.Hour}, all},
		"old, although it fits": {Pruning{Limited: true, Size: 1 << 40, Older: time.Hour},
			6},
	} {
		t.Run(name, func(t *testing.T) {
			dir, cache := twoSources(t)
			for j := range small.blocks {
				off, n := small.block(2, j)
				old := time.Now().Add(-2 * time.Hour)
				if err := cache.folder.root.Chtimes(block{small.key(2), off, n}.path(), old,
					old); err != nil {
					t.Fatal(err)
				}
			}
			before := bound(t, dir)
			blocks, bytes, err := Prune(dir, c.p)
			files, _ := filesIn(t, dir)
			if err != nil || blocks != c.want || len(files) != all-c.want {
				t.Errorf("%d blocks removed, %d are left, want %d removed (%v)", blocks, len(files),
					c.want, err)
			}
			if freed := before - bound(t, dir); bytes < freed ||
				bytes > freed+int64(blocks)*alignment {
				t.Errorf("it says that %d bytes were freed, not %d", bytes, freed)
			}
			for i := range small.objects {
				if got := small.readAll(t, cache, i, 0); got && slices.Contains(c.p.Origins,
					"https://host/") {
					t.Errorf("object %d is there", i)
				}
			}
		})
	}
}

func TestPruneToASizeRemovesTheOldest(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCache(t, dir, 0)
	for i := range even.objects {
		even.write(c, i, 0)
		off, n := even.block(i, 0)
		when := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := c.folder.root.Chtimes(block{even.key(i), off, n}.path(), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if blocks, bytes, err := Prune(dir, Pruning{Limited: true, Size: 3*unit + 1}); blocks != 3 ||
		bytes != 3*unit || err != nil {
		t.Errorf("%d blocks, %d bytes (%v)", blocks, bytes, err)
	}
	for i := range even.objects {
		if got := even.readAll(t, c, i, 0); got != (i < 3) {
			t.Errorf("object %d is there: %v", i, got)
		}
	}
	if dirs, _ := filepath.Glob(filepath.Join(dir, "v1", "??", "*")); len(dirs) != 3 {
		t.Errorf("empty directories are left: %v", dirs)
	}
}

func TestPruneOfAnUnknownSourceRemovesNothing(t *testing.T) {
	dir, _ := twoSources(t)
	before, _ := filesIn(t, dir)
	for _, unknown := range []string{"hf://org/nam", "hf://org/name2", "hf://org/name/sub", "",
		"https://hos"} {
		_, _, err := Prune(dir, Pruning{Origins: []string{"hf://org/name", unknown}})
		if !errors.Is(err, ErrNoSource) || err.Error() != fmt.Sprintf("%s: %v", unknown,
			ErrNoSource) {
			t.Errorf("%q: error %v", unknown, err)
		}
	}
	if after, _ := filesIn(t, dir); len(after) != len(before) {
		t.Errorf("%d of %d files are left", len(after), len(before))
	}
}

// Mounts use a folder while it is listed and pruned.
func TestPruneUnderLoad(t *testing.T) {
	dir := t.TempDir()
	c, w := openCache(t, dir, 0)
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 20 {
			small.visit(t, c)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if _, err := Sources(dir); err != nil {
			t.Error(err)
		}
		if _, _, err := Prune(dir, Pruning{Limited: true, Size: unit}); err != nil {
			t.Error(err)
		}
	}
	small.visit(t, c)
	if n := small.count(t, c); n != int(small.objects*small.blocks) {
		t.Errorf("%d blocks are there", n)
	}
	w.want(t)
}

func FuzzFooter(f *testing.F) {
	b := block{Key{"origin", "object", "version"}, 7, 8}
	good := make([]byte, footerSize)
	b.footer(good)
	f.Add(good[:headSize+20])
	f.Fuzz(func(t *testing.T, some []byte) {
		p := make([]byte, footerSize)
		copy(p, some)
		got, ok := parseFooter(p)
		if ok != got.valid() {
			t.Errorf("%+v: %v", got, ok)
		}
		if ok {
			again := make([]byte, footerSize)
			got.footer(again)
			if back, ok := parseFooter(again); !ok || back != got {
				t.Errorf("%+v becomes %+v", got, back)
			}
		}
	})
}
