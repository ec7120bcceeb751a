package diskcache

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

func TestReadsEqualSlicesOfTheBlock(t *testing.T) {
	c, w := openCache(t, filepath.Join(t.TempDir(), "new", "cache"), 0)
	if n := small.count(t, c); n != 0 {
		t.Errorf("an empty cache has %d blocks", n)
	}
	small.fill(c)
	if n := small.count(t, c); n != int(small.objects*small.blocks) {
		t.Errorf("%d blocks are there", n)
	}
	// Around each border of a piece, and everywhere.
	_, n := small.block(0, 0)
	for at := int64(0); at <= n; at += pieceSize {
		for _, from := range []int64{at - 1, at, at + 1} {
			for _, length := range []int64{0, 1, 2, pieceSize - 1, pieceSize, pieceSize + 1,
				n - from} {
				if from >= 0 && length >= 0 && from+length <= n &&
					!small.readWant(t, c, 0, 0, from, length) {
					t.Errorf("bytes %d+%d are not there", from, length)
				}
			}
		}
	}
	eachSeed(t, func(t *testing.T, r *rand.Rand) {
		for range size.Count(300, 10_000) {
			i, j := r.Int64N(small.objects), r.Int64N(small.blocks)
			_, n := small.block(i, j)
			at := r.Int64N(n)
			if length := r.Int64N(n - at + 1); !small.readWant(t, c, i, j, at, length) {
				t.Errorf("object %d, block %d, bytes %d+%d are not there", i, j, at, length)
			}
		}
	})
	w.want(t)
}

func TestLargeBlocksAreReadInSteps(t *testing.T) {
	c, _ := openCache(t, t.TempDir(), 0)
	k := Key{"o", "n", "v"}
	data := make([]byte, 3*readAtOnce+pieceSize+5)
	rand.NewChaCha8([32]byte{1}).Read(data)
	c.Write(k, 0, data)
	for _, at := range []int{0, 1, pieceSize, readAtOnce, readAtOnce + 1, 3 * readAtOnce} {
		for _, end := range []int{len(data), len(data) - 1, 3 * readAtOnce, len(data) - 5} {
			p := make([]byte, max(end-at, 0))
			if !c.Read(k, 0, int64(len(data)), p, int64(at)) || !bytes.Equal(p,
				data[at:at+len(p)]) {
				t.Errorf("bytes %d to %d are not there, or wrong", at, end)
			}
		}
	}
}

func TestOtherKeysAndRangesAreMissed(t *testing.T) {
	c, w := openCache(t, t.TempDir(), 0)
	k := Key{"origin", "object", "version"}
	data := small.content(0, 0)
	n := int64(len(data))
	c.Write(k, 100, data)
	for name, o := range map[string]struct {
		k          Key
		off, n, at int64
	}{
		"origin":       {Key{"origim", "object", "version"}, 100, n, 0},
		"object":       {Key{"origin", "objekt", "version"}, 100, n, 0},
		"version":      {Key{"origin", "object", "versiom"}, 100, n, 0},
		"other border": {Key{"origino", "bject", "version"}, 100, n, 0},
		"offset":       {k, 101, n, 0},
		"length":       {k, 100, n - 1, 0},
		"beyond":       {k, 100, n, n},
		"before":       {k, 100, n, -1},
		"overflow":     {k, 100, n, 1 << 62},
	} {
		if c.Read(o.k, o.off, o.n, make([]byte, 10), o.at) {
			t.Errorf("another %s is a hit", name)
		}
	}
	if !c.Read(k, 100, n, make([]byte, n), 0) {
		t.Error("the block itself is missed")
	}
	w.want(t)
}

func TestWhatCannotBeNamedIsNotKept(t *testing.T) {
	dir := t.TempDir()
	c, w := openCache(t, dir, 0)
	data := []byte("bytes")
	for name, k := range map[string]Key{
		"no version": {"origin", "object", ""},
		"too long":   {"origin", strings.Repeat("x", footerSize), "version"},
	} {
		c.Write(k, 0, data)
		if c.Read(k, 0, int64(len(data)), make([]byte, 1), 0) {
			t.Errorf("%s: it is kept", name)
		}
	}
	c.Write(Key{"origin", "object", "version"}, -1, data)
	c.Write(Key{"origin", "object", "version"}, 0, nil)
	if files, _ := filesIn(t, dir); len(files) > 0 {
		t.Errorf("files %v", files)
	}
	longest := Key{"o", strings.Repeat("x", footerSize-headSize-crcSize-2), "v"}
	c.Write(longest, 0, data)
	if !c.Read(longest, 0, int64(len(data)), make([]byte, 1), 0) {
		t.Error("the longest name is not kept")
	}
	w.want(t)
}

func TestASecondProcessHasTheSameBlocks(t *testing.T) {
	dir := t.TempDir()
	first, _ := openCache(t, dir, 0)
	second, _ := openCache(t, dir, 0)
	small.fill(first)
	if n := small.count(t, second); n != int(small.objects*small.blocks) {
		t.Errorf("the second has %d blocks", n)
	}
	before, _ := filesIn(t, dir)
	info, err := os.Stat(before[0])
	if err != nil {
		t.Fatal(err)
	}
	small.fill(second)
	again, err := os.Stat(before[0])
	if err != nil || !os.SameFile(info, again) {
		t.Errorf("a block that is there was written again (%v)", err)
	}
}

func TestAClosedCacheHasNothing(t *testing.T) {
	dir := t.TempDir()
	c, w := openCache(t, dir, 0)
	small.fill(c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := small.count(t, c); n != 0 {
		t.Errorf("it has %d blocks", n)
	}
	small.fill(c)
	w.want(t)
	c, _ = openCache(t, dir, 0)
	if n := small.count(t, c); n != int(small.objects*small.blocks) {
		t.Errorf("opened again, it has %d blocks", n)
	}
}
