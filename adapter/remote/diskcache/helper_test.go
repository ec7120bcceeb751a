package diskcache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// world is objects whose bytes depend on their key alone.
type world struct{ objects, blocks, length int64 }

// small has blocks of all shapes: of one byte, of less than a piece, and of many.
var small = world{objects: 4, blocks: 6, length: 5*pieceSize + 77}

func (w world) key(i int64) Key {
	return Key{"https://host/folder/", fmt.Sprintf("model-%05d.safetensors", i), fmt.Sprintf("etag%d", i)}
}

// block gives the range of a block of an object.
func (w world) block(i, j int64) (off, n int64) {
	lengths := []int64{w.length, 1, pieceSize, pieceSize - 1, 2 * pieceSize, 3*pieceSize + 1}
	for k := range j {
		off += lengths[k%int64(len(lengths))]
	}
	return off + i, lengths[j%int64(len(lengths))]
}

// content is the bytes of a block: the slow, obvious way to have them.
func (w world) content(i, j int64) []byte {
	off, n := w.block(i, j)
	r := rand.NewChaCha8([32]byte{byte(i), byte(j), byte(off), byte(n)})
	p := make([]byte, n)
	r.Read(p)
	return p
}

// readWant reads part of a block. If the cache has it, its bytes must be right.
func (w world) readWant(t testing.TB, c *Cache, i, j, at, length int64) bool {
	t.Helper()
	off, n := w.block(i, j)
	p := make([]byte, length)
	if !c.Read(w.key(i), off, n, p, at) {
		return false
	}
	if !bytes.Equal(p, w.content(i, j)[at:at+length]) {
		t.Errorf("object %d, block %d, bytes %d+%d: wrong bytes", i, j, at, length)
	}
	return true
}

func (w world) readAll(t testing.TB, c *Cache, i, j int64) bool {
	t.Helper()
	_, n := w.block(i, j)
	return w.readWant(t, c, i, j, 0, n)
}

func (w world) write(c *Cache, i, j int64) {
	off, _ := w.block(i, j)
	c.Write(w.key(i), off, w.content(i, j))
}

// fill writes every block.
func (w world) fill(c *Cache) {
	for i := range w.objects {
		for j := range w.blocks {
			w.write(c, i, j)
		}
	}
}

// count counts the blocks that the cache has, which must be right.
func (w world) count(t testing.TB, c *Cache) (n int) {
	t.Helper()
	for i := range w.objects {
		for j := range w.blocks {
			if w.readAll(t, c, i, j) {
				n++
			}
		}
	}
	return n
}

// visit reads every block, and writes those that are missing.
func (w world) visit(t testing.TB, c *Cache) {
	for _, i := range rand.Perm(int(w.objects)) {
		for _, j := range rand.Perm(int(w.blocks)) {
			if !w.readAll(t, c, int64(i), int64(j)) {
				w.write(c, int64(i), int64(j))
			}
		}
	}
}

// even has blocks of one size, of which any cache in these tests has room for some.
var even = world{objects: 6, blocks: 1, length: 2 * pieceSize}

// unit is what a block of even takes.
var unit = onDisk(even.length)

// warnings keeps what is logged.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *warnings) WithGroup(string) slog.Handler            { return w }
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, r.Message)
	return nil
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.text)
}

// want requires one warning for each text, in order.
func (w *warnings) want(t testing.TB, texts ...string) {
	t.Helper()
	all := w.all()
	ok := len(all) == len(texts)
	for i := 0; ok && i < len(texts); i++ {
		ok = strings.Contains(all[i], texts[i])
	}
	if !ok {
		t.Errorf("warnings %q, want %q", all, texts)
	}
}

// openCache opens a cache until the test ends. The disk may be rather full. The first look into the
// folder is over, since it may take a temporary file that is just being made for abandoned.
func openCache(t testing.TB, dir string, size int64) (*Cache, *warnings) {
	t.Helper()
	w := &warnings{}
	c, err := Open(dir, Options{Size: size, Free: 1, Logger: slog.New(w)})
	if err != nil {
		t.Fatal(err)
	}
	c.listing.Wait()
	t.Cleanup(func() { c.Close() })
	return c, w
}

// filesIn lists the files of blocks, and their bytes.
func filesIn(t testing.TB, dir string) (names []string, bytes int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "v1", "??", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if info, err := os.Lstat(n); err == nil {
			bytes += info.Size()
		}
	}
	return names, bytes
}

// bound is the bytes of the files of a cache, whatever they are.
func bound(t testing.TB, dir string) (total int64) {
	t.Helper()
	filepath.WalkDir(filepath.Join(dir, "v1"), func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// required reports whether the environment demands that a test with this need runs.
func required(need string) bool {
	list := strings.Split(os.Getenv("DEQUANTFS_REQUIRE"), ",")
	return slices.Contains(list, need) || slices.Contains(list, "all")
}

// eachSeed runs a test with random numbers.
func eachSeed(t *testing.T, test func(t *testing.T, r *rand.Rand)) {
	for _, seed := range size.Seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			test(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}
